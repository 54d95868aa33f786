#!/usr/bin/env python3
"""Tests of check-layers.py: small trees with one fault each, and the finding that must name it."""

import os
import subprocess
import sys
import tempfile

CHECKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check-layers.py")
CLEAN = {
    "src/base/.may_include": "# nothing\n",
    "src/base/a.h": "int a_get(void);\n",
    "src/base/a.c": '#include "base/a.h"\n\n#include <string.h>\n#include "config.h"\n\n'
                    "int a_get(void)\n{\n    return (int)strlen(\"free(x) strcpy(y)\"); /* gets() */\n}\n",
    "src/net/.may_include": "base\n<openssl/*>\n",
    "src/net/n.h": '#include "base/a.h"\n#include <openssl/ssl.h>\n',
    "src/net/n_priv.h": "",
    "src/net/n.c": '#include "net/n.h"\n\n#include "net/n_priv.h"\n',
    "scripts/allowed-calls.txt": "",
    "scripts/budget-exceptions.txt": "",
}
LONG = "void f(void)\n{\n" + "    a();\n" * 79 + "}\n"
DEEP = "void f(int a)\n{\n" + "    if (a) {\n" * 5 + "}\n" * 5 + "}\n"
DEEP = DEEP.replace("\n}", "\n    }", 5)
BRANCHY = "int f(int a)\n{\n" + "    if (a && 1) a++;\n" * 10 + "    return a;\n}\n"
PARAMS = "int f(int a, int b, int c, int d,\n      int e, int (*g)(int, int), int h)\n{\n    return 0;\n}\n"

# name, files changed, arguments, lines that must be printed (none: exit status 0)
CASES = [
    ("clean", {}, [], []),
    ("not listed", {"src/net/n.h": '\n#include "http/x.h"\n', "src/http/x.h": "",
                    "src/http/.may_include": ""}, [],
     ['src/net/n.h:2: "http/x.h": src/net/.may_include does not list "http"']),
    ("upwards", {"src/base/b.c": '#include "net/n.h"\n'}, [],
     ['src/base/b.c:1: "net/n.h": src/base/.may_include does not list "net"']),
    ("cycle", {"src/base/.may_include": "net\n"}, [],
     ["src/base/.may_include:1: cycle: base -> net -> base",
      "src/net/.may_include:1: cycle: net -> base -> net"]),
    ("third party", {"src/base/b.c": "#include <openssl/ssl.h>\n"}, [],
     ["src/base/b.c:1: <openssl/ssl.h>: not a system header, and "
      "src/base/.may_include does not list it"]),
    ("private", {"src/net/.may_include": "base\n<openssl/*>\n", "src/base/a_priv.h": "",
                 "src/net/m.c": '#include "base/a_priv.h"\n'}, [],
     ['src/net/m.c:1: "base/a_priv.h": private to src/base']),
    ("short path", {"src/net/n.c": '#include "n.h"\n'}, [],
     ['src/net/n.c:1: "n.h": write the full path, "net/n.h"',
      'src/net/n.c:1: the first include must be the own header, "net/n.h"']),
    ("private header first", {"src/net/n.c": '#include "net/n_priv.h"\n'}, [], []),
    ("system header first", {"src/net/n.c": '#include <errno.h>\n#include "net/n.h"\n'}, [],
     ['src/net/n.c:1: the first include must be the own header, "net/n.h"']),
    ("missing header", {"src/net/m.c": '#include "base/none.h"\n'}, [],
     ['src/net/m.c:1: "base/none.h": no such file under src/']),
    ("no list", {"src/new/x.c": "int x_get(void);\n"}, [],
     ["src/new/.may_include:1: missing: a directory with sources says what it may include"]),
    ("banned", {"src/net/m.c": "\nvoid m(void)\n{\n    strcpy(a, b);\n    o->system(x);\n}\n"}, [],
     ["src/net/m.c:4: strcpy is banned here: use str_add or memcpy with a known size"]),
    ("allocation", {"src/net/m.c": "void m(void)\n{\n    free(a);\n}\n"}, [],
     ["src/net/m.c:3: free is banned here: use xfree"]),
    ("allocation allowed", {"src/net/m.c": "void m(void)\n{\n    free(a);\n}\n",
                            "scripts/allowed-calls.txt": "src/net/m.c free: a library made it\n"},
     [], []),
    ("allowance unused", {"scripts/allowed-calls.txt": "src/net/n.c free: a library made it\n"}, [],
     ["scripts/allowed-calls.txt:1: src/net/n.c does not call free: remove it"]),
    ("long function", {"src/net/m.c": LONG}, [],
     ["src/net/m.c:1: f: 81 lines in a function (at most 80)"]),
    ("deep function", {"src/net/m.c": DEEP}, [],
     ["src/net/m.c:1: f: 5 levels of braces inside a function (at most 4)"]),
    ("many branches", {"src/net/m.c": BRANCHY}, [],
     ["src/net/m.c:1: f: 21 branches in a function (at most 20)"]),
    ("many parameters", {"src/net/m.c": PARAMS}, [],
     ["src/net/m.c:1: f: 7 parameters; use an options struct (at most 6)"]),
    ("long file", {"src/net/m.h": "int x;\n" * 301}, [],
     ["src/net/m.h:1: 301 lines in a .h file (at most 300)"]),
    ("long line", {"src/net/m.h": "\n" + "/" * 101 + "\n"}, [],
     ["src/net/m.h:2: 1 lines over 100 columns (at most 0)"]),
    ("exception", {"src/net/m.c": LONG, "scripts/budget-exceptions.txt":
                   "src/net/m.c:f function-lines 81: a table\n"}, ["--strict"], []),
    ("exception outgrown", {"src/net/m.c": LONG, "scripts/budget-exceptions.txt":
                            "src/net/m.c:f function-lines 80: a table\n"}, [],
     ["src/net/m.c:1: f: 81 lines in a function (at most 80)"]),
    ("exception too large", {"src/net/m.c": LONG, "scripts/budget-exceptions.txt":
                             "src/net/m.c:f function-lines 90: a table\n"}, ["--strict"],
     ["scripts/budget-exceptions.txt:1: src/net/m.c:f function-lines: lower it to 81"]),
    ("exception without reason", {"scripts/budget-exceptions.txt": "src/net/m.c c-lines 90:\n"}, [],
     ["scripts/budget-exceptions.txt:1: not a row of the form KEY BUDGET VALUE: REASON"]),
    ("shared variable", {"src/net/m.h": "extern int counter;\nextern const int limit;\n"}, [],
     ["src/net/m.h:1: a mutable variable shared by a header"]),
    ("unfinished", {"src/net/m.h": "/* TO" + "DO: later */\n"}, [],
     ["src/net/m.h:1: a note of unfinished work: finish it or file it"]),
]


def run(files, arguments):
    with tempfile.TemporaryDirectory() as root:
        for name, text in {**CLEAN, **files}.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        done = subprocess.run([sys.executable, CHECKER, "--root", root, *arguments],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def main():
    bad = 0
    for name, files, arguments, wanted in CASES:
        status, output = run(files, arguments)
        if status != (1 if wanted else 0) or output.splitlines() != wanted:
            bad += 1
            print(f"{name}: exit status {status}, wanted:", *wanted, "but got:", output, sep="\n")
    print(f"{len(CASES) - bad} of {len(CASES)} cases of the checker pass")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
