"""llama.cpp's server in the folder that run.sh makes, for tests and benchmarks. Standard library only."""
import json
import os
import socket
import subprocess
import time
import urllib.request


def report(ok, name, why=""):
    print(("ok " if ok else "not ok ") + name + (f": {why}" if why and not ok else ""), flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server of the model /root/FILE in the folder root; after kill, start takes the same port."""

    def __init__(self, root, file, threads=1, slots=8):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = ["chroot", root, "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "llama-server", "-m", f"/root/{file}",
                        "--host", "127.0.0.1", "--port", str(self.port), "-t", str(threads), "-np", str(slots)]
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                self.get("/health")
                return
            except OSError:  # nobody there, or 503 while it loads
                time.sleep(0.1)
        raise TimeoutError("llama-server is not ready")

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def is_idle(self):
        return not any(slot["is_processing"] for slot in self.get("/slots"))

    def kill(self):
        self.process.kill()
        self.process.wait()


class Database:
    """The server of PostgreSQL that the environment (PGHOST, ...) names, with the extension."""

    def run(self, sql, timeout=120):
        """Rows as psql -At prints them, and what it says of errors."""
        done = subprocess.run(["psql", "-XAtq", "-v", "VERBOSITY=verbose", "-c", sql], capture_output=True, text=True,
                              timeout=timeout, check=False)
        return done.stdout.rstrip("\n"), done.stderr

    def value(self, sql):
        out, errors = self.run(sql)
        if errors:
            raise RuntimeError(errors)
        return out

    def start(self, *statements):
        """A psql that goes on by itself."""
        commands = [part for sql in statements for part in ("-c", sql)]
        return subprocess.Popen(["psql", "-XAtq", "-v", "VERBOSITY=verbose", *commands], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=os.environ)

    def use(self, url, **settings):
        """The servers of this url, or with an empty one the engine here; until it is ready."""
        for name, value in {"engine_url": url, **settings}.items():
            self.value(f"ALTER SYSTEM SET minimax_m1.{name} = '{value}'")
        self.value("SELECT pg_reload_conf()")
        self.until("SELECT state = 'ready' AND starts_with(device, 'http') = ('" + url + "' <> '') FROM minimax_m1.model")

    def until(self, sql, seconds=180):
        end = time.monotonic() + seconds
        while self.value(sql) != "t":
            if time.monotonic() > end:
                raise TimeoutError(sql)
            time.sleep(0.1)
