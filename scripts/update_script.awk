# update_script.awk - an update as sql/update has it, with what it takes over from sql/install put in:
#   -- all of FILE              the whole of it
#   -- new NAME of FILE         the one function of that name, as it is made there
#   -- replaced NAME of FILE    the same, in the place of the one that there was

function fail(why) {
    print FILENAME ":" FNR ": " why > "/dev/stderr"
    exit 1
}

# A statement ends with a semicolon outside of its body.
function put_function(name, file, replaced,    start, line, inside, body, found) {
    start = "CREATE FUNCTION " name "("
    while ((getline line < file) > 0) {
        if (!inside && substr(line, 1, length(start)) == start) {
            inside = 1
            body = 0
            found++
            if (replaced)
                sub(/^CREATE /, "CREATE OR REPLACE ", line)
        }
        if (!inside)
            continue
        print line
        body = (body + gsub(/\$\$/, "&", line)) % 2
        inside = body || line !~ /;$/
    }
    close(file)
    if (found != 1)
        fail(found + 0 " functions " name " in " file)
}

/^-- all of / {
    while ((getline line < $4) > 0)
        print line
    close($4)
    next
}
/^-- (new|replaced) [^ ]+ of / {
    put_function($3, $5, $2 == "replaced")
    next
}
{ print }
