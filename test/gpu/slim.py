#!/usr/bin/env python3
"""slim.py ROOT VERSION: of Debian's packages, unpacked in ROOT, leaves what a private server of that version of
PostgreSQL and the programs of a bundle use.

That is the four programs that server.sh starts, the two modules that initdb asks for, the libraries that the bundle's
programs are linked with, and whatever these load. Of ICU's data, of which initdb asks which locales there are, those
parts become zeros that are not asked for: an archive has next to nothing of them then, and ICU takes its root's, as for
a locale that it does not know.
"""
import glob
import os
import re
import shutil
import struct
import subprocess
import sys

PROGRAMS = ("bin/postgres", "bin/initdb", "bin/pg_ctl", "bin/psql", "lib/plpgsql.so", "lib/dict_snowball.so")
LINKED = ("libcmocka", "libjansson", "libpcre2-8", "libcurl")
ON_EVERY_MACHINE = re.compile(r"^(ld-linux\S*|lib(c|m|dl|pthread|rt|resolv|crypt|gcc_s|stdc\+\+))\.so\b")
UNUSED = ("man", "contrib", "extension/[!p]*", "extension/p[!l]*")
# Locales, transliterations, converters, words to break lines at, confusable characters, profiles, names of characters.
BLANKED = re.compile(r"/((?!res_index)[a-z]{2,3}(_\w+)?\.res|translit/\w+\.res|[^/]+\.(cnv|dict|cfu|spp)|unames\.icu)$")


def loaded(root, files):
    """Those of ROOT that the loader takes for them, and they themselves."""
    folders = {os.path.dirname(path) for path in glob.glob(f"{root}/**/*.so.*", recursive=True)}
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(sorted(folders)))
    told = subprocess.run(["ldd", *files], env=environment, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^\s*(\S+) => (\S+)", told, re.M))
    missing = [name for name, path in found.items()
               if not path.startswith(f"{root}/") and not ON_EVERY_MACHINE.match(name)]
    if missing:
        sys.exit(f"slim.py: the packages lack {', '.join(sorted(missing))}")
    return [path for path in found.values() if path.startswith(f"{root}/")] + files


def keep_only(root, files):
    """Removes everything else but the server's data. Links lead to what is kept."""
    kept = {os.path.realpath(path) for path in files}
    for folder, _, names in os.walk(root):
        for path in (os.path.join(folder, name) for name in names):
            if not path.startswith(f"{root}/usr/share/postgresql/") and os.path.realpath(path) not in kept:
                os.remove(path)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def blank_data(path):
    """A table has, for each item in the order of their names, how far from it its name is and how far its bytes are."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    header = data.index(b"CmnD") - 12
    table = header + struct.unpack_from("<H", data, header)[0]
    count = struct.unpack_from("<I", data, table)[0]
    items = list(struct.iter_unpack("<II", data[table + 4:table + 4 + 8 * count]))
    for (name, begin), (_, end) in zip(items, items[1:]):
        if BLANKED.search(data[table + name:data.index(0, table + name)].decode()):
            data[table + begin:table + end] = bytes(end - begin)
    with open(path, "wb") as file:
        file.write(data)


def main(root, version):
    root = os.path.realpath(root)
    files = [f"{root}/usr/lib/postgresql/{version}/{name}" for name in PROGRAMS]
    files += [path for name in LINKED for path in glob.glob(f"{root}/usr/lib/*/{name}.so.*")]
    keep_only(root, loaded(root, files))
    for name in UNUSED:
        for path in glob.glob(f"{root}/usr/share/postgresql/{version}/{name}"):
            remove(path)
    for path in glob.glob(f"{root}/usr/lib/*/libicudata.so.*.*"):
        blank_data(path)


main(*sys.argv[1:])
