#!/usr/bin/env python3
"""Check the layering and the house rules of the C sources under src/.

Usage: check-layers.py [--root DIR] [--strict]

What is checked (docs/architecture.md has the layers):

* Includes. src/<dir>/.may_include lists, one a line, the own directories ("base") and the third
  party headers ("<yaml.h>", "<openssl/*>") that the files of the directory may include. System
  headers may always be included. An own header is written with its full path, exists, and comes
  first in the .c file of its name (or the *_priv.h that includes it does); a *_priv.h belongs to
  its directory.
* The lists themselves: no unknown directories, no cycles.
* Calls that are banned, and allocation around src/base/xmem.h (scripts/allowed-calls.txt has the
  exceptions, each with its reason).
* Budgets: length, parameters, branches and depth of functions, length of files and lines
  (scripts/budget-exceptions.txt has the exceptions; they may only shrink).
* Mutable variables that a header shares, and notes that say something is still to be done.

Every finding is one line FILE:LINE: TEXT. Exit status: 0 clean, 1 findings, 2 cannot run.
"""

import argparse
import fnmatch
import os
import re
import sys

BANNED = {
    "strcpy": "str_add or memcpy with a known size",
    "strcat": "str_add",
    "sprintf": "snprintf or str_addf",
    "vsprintf": "vsnprintf or str_vaddf",
    "strtok": "a view that walks the text",
    "gets": "a bounded read",
    "rand": "rng_next",
    "srand": "rng_seed",
    "atoi": "a parser that reports errors",
    "atol": "a parser that reports errors",
    "atof": "a parser that reports errors",
    "localtime": "gmtime_r or localtime_r",
    "gmtime": "gmtime_r",
    "ctime": "clock_format",
    "asctime": "clock_format",
    "signal": "sigaction or ev_signal",
    "system": "nothing: this program starts no shell",
    "popen": "nothing: this program starts no shell",
    "alloca": "xmalloc",
}
ALLOCATION = {
    "malloc": "xmalloc",
    "calloc": "xcalloc",
    "realloc": "xrealloc",
    "free": "xfree",
    "strdup": "xstrdup",
    "strndup": "xmemdup0",
    "asprintf": "str_addf",
    "vasprintf": "str_vaddf",
}
CALL = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join([*BANNED, *ALLOCATION]))

SYSTEM = """
    arpa/* assert.h ctype.h dirent.h dlfcn.h endian.h errno.h fcntl.h fenv.h float.h fnmatch.h
    getopt.h glob.h grp.h ifaddrs.h inttypes.h langinfo.h libgen.h limits.h linux/* locale.h malloc.h math.h
    net/if.h netdb.h netinet/* poll.h pthread.h pwd.h sched.h semaphore.h setjmp.h signal.h
    *mmintrin.h immintrin.h spawn.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h
    string.h strings.h sys/* syslog.h termios.h time.h ucontext.h unistd.h wchar.h execinfo.h
""".split()

# Budget name -> (cap, text). Counted by the functions below.
CAPS = {
    "function-lines": (80, "lines in a function"),
    "parameters": (6, "parameters; use an options struct"),
    "branches": (20, "branches in a function"),
    "depth": (4, "levels of braces inside a function"),
    "c-lines": (900, "lines in a .c file"),
    "h-lines": (300, "lines in a .h file"),
    "long-lines": (0, "lines over 100 columns"),
}
COLUMNS = 100
BRANCH = re.compile(r"\b(?:if|for|while|case)\b|&&|\|\||\?")
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


class Findings:
    def __init__(self):
        self.items = set()

    def add(self, path, line, text):
        self.items.add((path, line, text))

    def show(self):
        for path, line, text in sorted(self.items):
            print(f"{path}:{line}: {text}")
        return bool(self.items)


def blank(text):
    """The text with comments and the insides of literals replaced by spaces, lines kept."""
    token = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def space(match):
        return re.sub(r"[^\n]", " ", match.group())

    return token.sub(space, text)


def read_rules(path):
    """Rows of a rule file: (line number, text), comments and blank lines left out."""
    rows = []
    if not os.path.exists(path):
        return rows
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.split("#", 1)[0].strip()
            if line:
                rows.append((number, line))
    return rows


class Tree:
    """The directories of src/ and what each may include."""

    def __init__(self, root, findings):
        self.root = root
        self.found = findings
        self.dirs = {}
        src = os.path.join(root, "src")
        for name in sorted(os.listdir(src)):
            path = os.path.join(src, name)
            if os.path.isdir(path):
                self.dirs[name] = sorted(f for f in os.listdir(path) if f.endswith((".c", ".h")))
        self.own = {}
        self.third = {}
        for name in self.dirs:
            self.read_list(name)

    def read_list(self, name):
        rel = f"src/{name}/.may_include"
        self.own[name] = {}
        self.third[name] = []
        if self.dirs[name] and not os.path.exists(os.path.join(self.root, rel)):
            self.found.add(rel, 1, "missing: a directory with sources says what it may include")
        for line, text in read_rules(os.path.join(self.root, rel)):
            if text.startswith("<") and text.endswith(">"):
                self.third[name].append(text[1:-1])
            elif text == name:
                self.found.add(rel, line, f'"{text}" is the directory itself')
            elif re.fullmatch(r"\w+", text):
                self.own[name][text] = line
            else:
                self.found.add(rel, line, f'"{text}" is neither a directory nor a <header>')

    def check_cycles(self):
        """Each directory that can reach itself is reported at the row that begins the way."""
        for name in self.dirs:
            for first, line in self.own[name].items():
                way = self.find_way(first, name)
                if way:
                    self.found.add(f"src/{name}/.may_include", line,
                                   "cycle: " + " -> ".join([name, *way]))

    def find_way(self, start, goal):
        todo, seen = [[start]], {start}
        while todo:
            way = todo.pop(0)
            for nxt in self.own.get(way[-1], {}):
                if nxt == goal:
                    return way + [nxt]
                if nxt not in seen:
                    seen.add(nxt)
                    todo.append(way + [nxt])
        return None


def check_own_include(tree, where, target, line):
    """One #include "..." of the file `where`."""
    directory = where.split("/")[1]
    if target == "config.h":
        return
    if "/" not in target:
        tree.found.add(where, line, f'"{target}": write the full path, "{directory}/{target}"')
        return
    other = target.split("/")[0]
    if not os.path.exists(os.path.join(tree.root, "src", target)):
        tree.found.add(where, line, f'"{target}": no such file under src/')
    elif other != directory and other not in tree.own[directory]:
        tree.found.add(where, line, f'"{target}": src/{directory}/.may_include does not list '
                                    f'"{other}"')
    elif other != directory and target.endswith("_priv.h"):
        tree.found.add(where, line, f'"{target}": private to src/{other}')


def check_system_include(tree, where, target, line):
    directory = where.split("/")[1]
    if any(fnmatch.fnmatchcase(target, p) for p in SYSTEM + tree.third[directory]):
        return
    tree.found.add(where, line, f"<{target}>: not a system header, and "
                                f"src/{directory}/.may_include does not list it")


def check_includes(tree, where, text):
    own_header = where[len("src/"):-2] + ".h"
    first = None
    for line, row in enumerate(text.split("\n"), 1):
        match = INCLUDE.match(row)
        if not match:
            continue
        if first is None:
            first = (match.group(1), line)
        if match.group(1):
            check_own_include(tree, where, match.group(1), line)
        else:
            check_system_include(tree, where, match.group(2), line)
    private = own_header.split("/")[0] + "/*_priv.h"
    if where.endswith(".c") and os.path.exists(os.path.join(tree.root, "src", own_header)):
        if first is None or not first[0] or (first[0] != own_header
                                             and not fnmatch.fnmatchcase(first[0], private)):
            tree.found.add(where, first[1] if first else 1,
                           f'the first include must be the own header, "{own_header}"')


class AllowedCalls:
    """Rows "FILE FUNCTION...: REASON" of scripts/allowed-calls.txt."""

    def __init__(self, root, findings):
        self.rel = "scripts/allowed-calls.txt"
        self.found = findings
        self.unused = {}
        for line, text in read_rules(os.path.join(root, self.rel)):
            match = re.fullmatch(r"(\S+) ([\w ]+): (\S.*)", text)
            if not match:
                findings.add(self.rel, line, "not a row of the form FILE FUNCTION...: REASON")
                continue
            for name in match.group(2).split():
                self.unused[match.group(1), name] = line
        self.rows = set(self.unused)

    def allows(self, where, name):
        self.unused.pop((where, name), None)
        return (where, name) in self.rows

    def check_unused(self):
        for (where, name), line in self.unused.items():
            self.found.add(self.rel, line, f"{where} does not call {name}: remove it")


def check_calls(tree, allowed, where, code):
    for line, row in enumerate(code.split("\n"), 1):
        for match in CALL.finditer(row):
            name = match.group(1)
            if name in ALLOCATION and where.startswith("src/base/"):
                continue
            if not allowed.allows(where, name):
                instead = BANNED.get(name) or ALLOCATION.get(name)
                tree.found.add(where, line, f"{name} is banned here: use {instead}")


def check_words(tree, where, text):
    for line, row in enumerate(text.split("\n"), 1):
        if UNFINISHED.search(row):
            tree.found.add(where, line, "a note of unfinished work: finish it or file it")
        if where.endswith(".h") and re.match(r"extern\b(?!.*\bconst\b)(?!.*\()", row):
            tree.found.add(where, line, "a mutable variable shared by a header")


def functions(code):
    """(name, parameters, first line, lines of the body) of each function definition. House style
    puts the brace that opens a function, and nothing else, alone in the first column."""
    rows = code.split("\n")
    for i, row in enumerate(rows):
        if row.rstrip() != "{":
            continue
        start = i
        while start > 0 and rows[start - 1].strip() and not re.match(r"[}#]|.*;\s*$", rows[start - 1]):
            start -= 1
        end = next((j for j in range(i, len(rows)) if rows[j].startswith("}")), len(rows) - 1)
        head = " ".join(rows[start:i])
        match = re.search(r"(\w+)\s*\(", head)
        if match:
            yield match.group(1), head[match.end() - 1:], start + 1, rows[i:end + 1]


def count_parameters(text):
    depth, commas = 0, 0
    for c in text:
        depth += {"(": 1, ")": -1}.get(c, 0)
        if c == "," and depth == 1:
            commas += 1
        if depth == 0:
            break
    return commas + 1


def deepest(body):
    depth = worst = 0
    for row in body:
        for c in row:
            depth += {"{": 1, "}": -1}.get(c, 0)
            worst = max(worst, depth)
    return worst - 1


def measure(where, text, code):
    """(budget, key, line, value) of everything that has a cap."""
    rows = text.split("\n")
    kind = "c-lines" if where.endswith(".c") else "h-lines"
    yield kind, where, 1, len(rows) - 1
    long_rows = [i for i, row in enumerate(rows, 1) if len(row) > COLUMNS]
    yield "long-lines", where, long_rows[0] if long_rows else 1, len(long_rows)
    for name, params, line, body in functions(code):
        key = f"{where}:{name}"
        yield "function-lines", key, line, len(body)
        yield "parameters", key, line, count_parameters(params)
        yield "branches", key, line, 1 + sum(len(BRANCH.findall(row)) for row in body)
        yield "depth", key, line, deepest(body)


class Budgets:
    """Caps and the rows "KEY BUDGET VALUE: REASON" of scripts/budget-exceptions.txt."""

    def __init__(self, root, findings):
        self.rel = "scripts/budget-exceptions.txt"
        self.found = findings
        self.rows = {}
        self.needed = {}
        for line, text in read_rules(os.path.join(root, self.rel)):
            match = re.fullmatch(r"(\S+) (\S+) (\d+): (\S.*)", text)
            if not match or match.group(2) not in CAPS:
                findings.add(self.rel, line, "not a row of the form KEY BUDGET VALUE: REASON")
                continue
            self.rows[match.group(1), match.group(2)] = (int(match.group(3)), line)

    def check(self, where, text, code):
        for budget, key, line, value in measure(where, text, code):
            cap, what = CAPS[budget]
            allowed = self.rows.get((key, budget), (cap, 0))[0]
            if value > cap:
                self.needed[key, budget] = value
            if value > max(cap, allowed):
                name = key.split(":")[1] + ": " if ":" in key else ""
                self.found.add(where, line, f"{name}{value} {what} (at most {max(cap, allowed)})")

    def shrink(self, strict):
        for (key, budget), (value, line) in self.rows.items():
            now = self.needed.get((key, budget), 0)
            if now >= value:
                continue
            text = f"{key} {budget}: " + (f"lower it to {now}" if now else "not needed: remove it")
            if strict:
                self.found.add(self.rel, line, text)
            else:
                print(f"{self.rel}:{line}: note: {text}")


def check_file(tree, allowed, budgets, where):
    try:
        with open(os.path.join(tree.root, where), encoding="utf-8") as f:
            text = f.read()
    except UnicodeDecodeError:
        tree.found.add(where, 1, "not UTF-8")
        return
    code = blank(text)
    check_includes(tree, where, text)
    check_calls(tree, allowed, where, code)
    check_words(tree, where, text)
    budgets.check(where, text, code)


def main():
    parser = argparse.ArgumentParser(description="Check the layering and the house rules of src/.")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), ".."))
    parser.add_argument("--strict", action="store_true",
                        help="exceptions that could be lowered are findings too")
    args = parser.parse_args()
    if not os.path.isdir(os.path.join(args.root, "src")):
        print(f"{args.root}: no src directory", file=sys.stderr)
        return 2
    found = Findings()
    tree = Tree(args.root, found)
    tree.check_cycles()
    allowed = AllowedCalls(args.root, found)
    budgets = Budgets(args.root, found)
    for directory, files in tree.dirs.items():
        for name in files:
            check_file(tree, allowed, budgets, f"src/{directory}/{name}")
    allowed.check_unused()
    budgets.shrink(args.strict)
    return 1 if found.show() else 0


if __name__ == "__main__":
    sys.exit(main())
