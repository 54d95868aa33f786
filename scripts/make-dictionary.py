#!/usr/bin/env python3
"""Train the dictionary of the spool's frames and write it as C.

Usage: make-dictionary.py [--samples DIR] [--size BYTES] OUTPUT.c

The spool keeps bodies of PUT /stream: arrays of log lines as lite-engine sends them, a few hundred
bytes to some KiB each. That is too little for a compressor to learn from, so it is given a
dictionary. No customer's log is in it: the training text below is made up, in the manner of the
tools that builds run. What the dictionary really carries is the shape of a line as JSON, times, and
the words that build tools keep saying.

The same script, the same versions of Python and of zstd (its command, which trains) give the same
bytes. A new dictionary needs a new ID and joins the old one: frames name the one that they were
packed with, and spools outlive the program.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

DICT_ID = 40193  # two bytes in a frame's head; below 32768 is reserved (RFC 8878 section 5)
SEED = 20260821
BODIES = 6000

WORDS = """core api web common service client server model utils config auth users orders payments
billing cart search index cache queue worker scheduler gateway proxy logging metrics storage events
notifications reports export import session token policy rules engine parser runtime registry data
shared domain persistence integration acceptance admin frontend backend mobile checkout catalog
inventory shipping email templates assets theme widgets forms tables charts router store hooks
""".split()
ORGS = "acme globex initech umbrella contoso example northwind company team platform".split()
TLDS = "com org io net dev".split()
ADJ = "Default Abstract Simple Remote Local Async Cached Secure Json Http Base Custom Internal".split()
NOUN = """Service Controller Repository Factory Handler Manager Client Provider Listener Mapper
Validator Converter Builder Filter Resolver Processor Adapter Config Utils Helper""".split()
VERB = "should returns creates updates deletes rejects accepts handles parses validates retries".split()
THING = """valid input,an empty list,missing fields,a timeout,duplicate keys,unknown users,null values,
large payloads,expired tokens,concurrent requests,a bad request,the default value""".replace(
    "\n", "").split(",")
EXT = "go ts tsx js py java kt rs c cpp rb cs".split()
ESC = "\u001b"


class Talk:
    """Random bits of text."""

    def __init__(self, rnd):
        self.r = rnd

    def w(self):
        return self.r.choice(WORDS)

    def n(self, top=1000):
        return self.r.randrange(top)

    def ver(self):
        return ".".join(str(self.r.randrange(t)) for t in (20, 30, 12))

    def hex(self, n):
        return "".join(self.r.choice("0123456789abcdef") for _ in range(n))

    def sec(self, top=60):
        return f"{self.r.random() * top:.{self.r.choice((1, 2, 3))}f}"

    def cls(self):
        return self.r.choice(ADJ) + self.w().capitalize() + self.r.choice(NOUN)

    def pkg(self):
        return f"{self.r.choice(TLDS[:3])}.{self.r.choice(ORGS)}.{self.w()}.{self.w()}"

    def path(self):
        return "/".join(self.w() for _ in range(self.r.randrange(1, 4)))

    def file(self):
        return f"{self.path()}/{self.w()}_{self.w()}.{self.r.choice(EXT)}"

    def repo(self):
        return f"github.com/{self.r.choice(ORGS)}/{self.w()}-{self.w()}"

    def size(self):
        return f"{self.r.random() * 900:.1f} {self.r.choice(('kB', 'MB', 'KiB', 'MiB', 'B', 'KB'))}"

    def host(self):
        return f"{self.w()}.{self.r.choice(ORGS)}.{self.r.choice(TLDS)}"

    def color(self, code, text):
        return f"{ESC}[{code}m{text}{ESC}[0m"


def shell(t):
    command = t.r.choice((
        "make", "make test", "go build ./...", "go test ./...", "npm ci", "npm run build", "npm test",
        "mvn -B clean install", "./gradlew build", "docker build -t app .", "pip install -r "
        "requirements.txt", "pytest -v", "cargo build --release", "terraform plan", "export PATH",
        "kubectl get pods", "set -e", "cd /harness", "ls -la", "yarn install --frozen-lockfile",
        "git status", "echo done", "chmod +x ./scripts/build.sh", "./scripts/build.sh", "bash -c"))
    yield f"+ {command}"
    yield t.r.choice((f"Executing step: {t.w()}", "Starting command execution...",
                      "Command completed with exit-code: 0", f"export {t.w().upper()}={t.hex(8)}",
                      f"drwxr-xr-x {t.n(20)} root root {t.n(9000)} Aug 21 09:{t.n(60):02} {t.w()}",
                      f"-rw-r--r-- 1 root root {t.n(99999)} Aug 21 09:{t.n(60):02} {t.w()}.json",
                      f"total {t.n(500)}", "", "=" * 60, "-" * 60, "done", "OK", "Done."))


def git(t):
    sha = t.hex(40)
    yield f"Cloning into '/harness/{t.w()}'..."
    yield "Initialized empty Git repository in /harness/.git/"
    yield "+ git fetch --depth=50 origin +refs/heads/main:"
    yield f"remote: Enumerating objects: {t.n(9999)}, done."
    yield f"remote: Counting objects: 100% ({t.n(999)}/{t.n(999)}), done."
    yield f"remote: Compressing objects: {t.n(100):3}% ({t.n(999)}/{t.n(999)})"
    yield f"Receiving objects: {t.n(100):3}% ({t.n(9999)}/{t.n(9999)}), {t.size()} | {t.size()}/s"
    yield f"Resolving deltas: 100% ({t.n(999)}/{t.n(999)}), done."
    yield f"From https://{t.repo()}"
    yield " * branch            main       -> FETCH_HEAD"
    yield " * [new branch]      main       -> origin/main"
    yield f"HEAD is now at {sha[:7]} Merge pull request #{t.n(9999)} from {t.w()}/{t.w()}-{t.w()}"
    yield f"Switched to a new branch 'feature/{t.w()}-{t.w()}'"


def maven(t):
    g, a, v = t.pkg(), t.w() + "-" + t.w(), t.ver()
    plug = t.r.choice(("maven-compiler-plugin", "maven-surefire-plugin", "maven-resources-plugin",
                       "maven-jar-plugin", "maven-install-plugin", "jacoco-maven-plugin",
                       "spring-boot-maven-plugin", "maven-clean-plugin", "maven-failsafe-plugin"))
    url = f"https://repo.maven.apache.org/maven2/{g.replace('.', '/')}/{a}/{v}/{a}-{v}"
    kind = t.r.choice(("jar", "pom"))
    yield "[INFO] Scanning for projects..."
    yield f"[INFO] Downloading from central: {url}.{kind}"
    yield f"[INFO] Downloaded from central: {url}.{kind} ({t.size()} at {t.size()}/s)"
    yield f"[INFO] --- {plug}:{v}:{t.r.choice(('compile', 'test', 'jar', 'resources'))} (default) @ {a} ---"
    yield f"[INFO] Building {a} {v}-SNAPSHOT [{t.n(30)}/{t.n(30)}]"
    yield f"[INFO] Compiling {t.n(300)} source files to /harness/{a}/target/classes"
    yield f"[INFO] Running {g}.{t.cls()}Test"
    yield (f"[INFO] Tests run: {t.n(40)}, Failures: 0, Errors: 0, Skipped: {t.n(3)}, Time elapsed: "
           f"{t.sec(9)} s - in {g}.{t.cls()}Test")
    yield f"[ERROR] Tests run: {t.n(40)}, Failures: 1, Errors: 0, Skipped: 0 <<< FAILURE!"
    yield f"[WARNING] {t.path()}/{t.cls()}.java: Some input files use unchecked or unsafe operations."
    yield f"[ERROR] /harness/src/main/java/{t.path()}/{t.cls()}.java:[{t.n(400)},{t.n(80)}] cannot find symbol"
    yield "[INFO] " + "-" * 72
    yield "[INFO] BUILD SUCCESS"
    yield f"[INFO] Total time:  {t.sec(59)} s"
    yield f"[INFO] Finished at: 2026-08-21T09:{t.n(60):02}:{t.n(60):02}Z"
    yield (f"2026-08-21 09:{t.n(60):02}:{t.n(60):02}.{t.n(999):03}  INFO {t.n(9999)} --- [           main] "
           f"{t.pkg()}.{t.cls()} : Started {t.cls()} in {t.sec(20)} seconds (JVM running for {t.sec(20)})")
    yield f"\tat {g}.{t.cls()}.{t.w()}({t.cls()}.java:{t.n(600)}) ~[classes/:na]"
    yield f"Caused by: java.lang.{t.r.choice(('IllegalState', 'NullPointer', 'IllegalArgument'))}Exception: {t.w()} is null"
    yield "\tat org.springframework.boot.SpringApplication.run(SpringApplication.java:301)"
    yield "\tat java.base/java.lang.Thread.run(Thread.java:840)"


def gradle(t):
    task = t.r.choice(("compileJava", "processResources", "classes", "test", "jar", "compileKotlin",
                       "assemble", "check", "build", "compileTestJava", "bootJar"))
    yield f"> Task :{t.w()}:{task}{t.r.choice(('', ' UP-TO-DATE', ' NO-SOURCE', ' FROM-CACHE', ' SKIPPED'))}"
    yield f"> Task :{task}"
    yield f"Downloading https://services.gradle.org/distributions/gradle-{t.ver()}-bin.zip"
    yield "Starting a Gradle Daemon (subsequent builds will be faster)"
    yield f"{t.cls()}Test > {t.r.choice(VERB)} {t.r.choice(THING)} PASSED"
    yield f"{t.cls()}Test > {t.w()}() FAILED"
    yield f"    org.opentest4j.AssertionFailedError at {t.cls()}Test.java:{t.n(300)}"
    yield f"BUILD SUCCESSFUL in {t.n(9)}m {t.n(60)}s"
    yield f"{t.n(99)} actionable tasks: {t.n(99)} executed, {t.n(99)} up-to-date"
    yield "Deprecated Gradle features were used in this build, making it incompatible with Gradle 9.0."
    yield f"w: file:///harness/src/main/kotlin/{t.path()}/{t.cls()}.kt:{t.n(300)}:{t.n(80)} Parameter '{t.w()}' is never used"


def npm(t):
    yield f"npm warn deprecated {t.w()}-{t.w()}@{t.ver()}: this package is no longer supported"
    yield f"npm http fetch GET 200 https://registry.npmjs.org/@{t.w()}%2f{t.w()} {t.n(999)}ms (cache miss)"
    yield f"added {t.n(2000)} packages, and audited {t.n(2000)} packages in {t.n(60)}s"
    yield f"{t.n(300)} packages are looking for funding"
    yield "  run `npm fund` for details"
    yield "found 0 vulnerabilities"
    yield f"> {t.w()}-{t.w()}@{t.ver()} build"
    yield "> webpack --mode production"
    yield f"{t.color(32, '✓')} {t.r.choice(VERB)} {t.r.choice(THING)} {t.color(90, f'({t.n(90)} ms)')}"
    yield f" {t.color('1;32', 'PASS')} src/{t.path()}/{t.w()}.test.{t.r.choice(EXT[1:4])} ({t.sec(9)} s)"
    yield f"{ESC}[0m{ESC}[7m{ESC}[1m{ESC}[31m FAIL {ESC}[39m{ESC}[22m{ESC}[27m{ESC}[0m src/{t.w()}.test.ts"
    yield f"Tests:       {t.n(9)} failed, {t.n(400)} passed, {t.n(400)} total"
    yield f"Test Suites: {t.n(90)} passed, {t.n(90)} total"
    yield f"Time:        {t.sec(90)} s"
    yield f"asset {t.w()}.{t.hex(20)}.js {t.size()} [emitted] [immutable] [minimized] (name: {t.w()})"
    yield f"dist/assets/{t.w()}-{t.hex(8)}.js   {t.sec(900)} kB │ gzip: {t.sec(90)} kB"
    yield f"warning \"{t.w()} > {t.w()}-{t.w()}@{t.ver()}\" has unmet peer dependency \"react@^17.0.0\"."
    yield f"[{t.n(4)}/4] Fetching packages..."
    yield f"src/{t.path()}.tsx({t.n(300)},{t.n(80)}): error TS2345: Argument of type 'string' is not assignable to parameter of type 'number'."
    yield f"  {t.n(300)}:{t.n(80)}  warning  '{t.w()}' is defined but never used  @typescript-eslint/no-unused-vars"
    yield f"✔ Compiled successfully in {t.sec(60)}s"


def golang(t):
    name = f"Test{t.cls()}_{t.w().capitalize()}"
    yield f"go: downloading {t.repo()} v{t.ver()}"
    yield f"go: downloading golang.org/x/{t.w()} v0.{t.n(40)}.0"
    yield f"=== RUN   {name}"
    yield f"=== RUN   {name}/{t.r.choice(THING).replace(' ', '_')}"
    yield f"=== PAUSE {name}"
    yield f"=== CONT  {name}"
    yield f"--- PASS: {name} (0.{t.n(99):02}s)"
    yield f"    --- PASS: {name}/{t.r.choice(THING).replace(' ', '_')} (0.00s)"
    yield f"--- FAIL: {name} ({t.sec(3)}s)"
    yield f"    {t.w()}_test.go:{t.n(500)}: expected {t.n()} but got {t.n()}"
    yield f"ok  \t{t.repo()}/{t.path()}\t{t.sec(20)}s\tcoverage: {t.sec(99)}% of statements"
    yield f"?   \t{t.repo()}/{t.path()}\t[no test files]"
    yield "PASS"
    yield f"FAIL\t{t.repo()}/{t.path()}\t{t.sec(20)}s"
    yield f"# {t.repo()}/{t.path()}"
    yield f"{t.path()}/{t.w()}.go:{t.n(500)}:{t.n(80)}: undefined: {t.cls()}"
    yield (f"time=\"2026-08-21T09:{t.n(60):02}:{t.n(60):02}Z\" level=info msg=\"starting {t.w()} {t.w()}\" "
           f"component={t.w()}")
    yield json.dumps({"level": "info", "ts": 1787306170.5, "caller": f"{t.w()}/{t.w()}.go:{t.n()}",
                      "msg": f"{t.w()} {t.w()}"})


def docker(t):
    layer = t.hex(12)
    yield f"Step {t.n(30)}/{t.n(30)} : RUN apt-get update && apt-get install -y --no-install-recommends curl"
    yield f"Step {t.n(30)}/{t.n(30)} : COPY . /app"
    yield f" ---> Running in {layer}"
    yield f" ---> {layer}"
    yield f"Removing intermediate container {layer}"
    yield f"#{t.n(40)} [{t.w()} {t.n(9)}/{t.n(9)}] RUN npm ci --omit=dev"
    yield f"#{t.n(40)} {t.sec(90)} {t.w()} {t.w()}"
    yield f"#{t.n(40)} DONE {t.sec(90)}s"
    yield f"#{t.n(40)} CACHED"
    yield f"#{t.n(40)} sha256:{t.hex(64)} {t.size()} / {t.size()} {t.sec(9)}s"
    yield f"#{t.n(40)} exporting layers"
    yield f"{layer}: Pulling fs layer"
    yield f"{layer}: Pull complete"
    yield f"{layer}: Pushed"
    yield f"{layer}: Layer already exists"
    yield f"{layer}: Download complete"
    yield f"latest: digest: sha256:{t.hex(64)} size: {t.n(4000)}"
    yield f"Digest: sha256:{t.hex(64)}"
    yield f"Successfully built {layer}"
    yield f"Successfully tagged {t.host()}/{t.w()}/{t.w()}:{t.ver()}"
    yield f"Status: Downloaded newer image for {t.w()}/{t.w()}:{t.ver()}"
    yield f"INFO[{t.n(9999):04}] Taking snapshot of full filesystem..."
    yield f"INFO[{t.n(9999):04}] Retrieving image manifest {t.w()}:{t.ver()}"
    yield f"INFO[{t.n(9999):04}] Unpacking rootfs as cmd COPY {t.w()} /app requires it."


def python(t):
    dots = "." * t.n(60)
    yield f"Collecting {t.w()}-{t.w()}=={t.ver()}"
    yield f"  Downloading {t.w()}_{t.w()}-{t.ver()}-py3-none-any.whl ({t.size()})"
    yield f"  Downloading {t.w()}-{t.ver()}-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    yield f"     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ {t.size()} {t.sec(90)} MB/s eta 0:00:00"
    yield f"Requirement already satisfied: {t.w()}>={t.ver()} in /usr/local/lib/python3.11/site-packages (from {t.w()})"
    yield f"Successfully installed {t.w()}-{t.ver()} {t.w()}-{t.w()}-{t.ver()}"
    yield "WARNING: Running pip as the 'root' user can result in broken permissions"
    yield "============================= test session starts =============================="
    yield f"platform linux -- Python 3.11.{t.n(9)}, pytest-{t.ver()}, pluggy-{t.ver()}"
    yield f"collected {t.n(900)} items"
    yield f"tests/{t.path()}/test_{t.w()}.py::test_{t.w()}_{t.w()} PASSED [{t.n(100):3}%]"
    yield f"tests/test_{t.w()}.py::Test{t.cls()}::test_{t.w()} FAILED [{t.n(100):3}%]"
    yield f"tests/{t.w()}/test_{t.w()}.py {dots} [{t.n(100):3}%]"
    yield f"E       AssertionError: assert {t.n()} == {t.n()}"
    yield f"  File \"/harness/{t.path()}/{t.w()}.py\", line {t.n(800)}, in {t.w()}_{t.w()}"
    yield "Traceback (most recent call last):"
    yield f"==== {t.n(9)} failed, {t.n(900)} passed, {t.n(30)} warnings in {t.sec(300)}s ===="
    yield f"2026-08-21 09:{t.n(60):02}:{t.n(60):02},{t.n(999):03} - {t.w()}.{t.w()} - {t.r.choice(('INFO', 'DEBUG', 'WARNING', 'ERROR'))} - {t.w()} {t.w()}"


def native(t):
    o = f"{t.path()}/{t.w()}"
    yield f"gcc -DHAVE_CONFIG_H -I. -I.. -O2 -g -Wall -Wextra -c -o {o}.o {o}.c"
    yield f"  CC       {o}.o"
    yield f"  CXX      {o}.lo"
    yield f"[{t.n(100):3}%] Building CXX object {t.path()}/CMakeFiles/{t.w()}.dir/{t.w()}.cpp.o"
    yield f"[{t.n(100):3}%] Linking CXX static library lib{t.w()}.a"
    yield f"[{t.n(100):3}%] Built target {t.w()}"
    yield f"[{t.n(2000)}/{t.n(2000)}] Compiling {t.w()} {t.w()}.c"
    yield f"-- Found {t.w().capitalize()}: /usr/lib/x86_64-linux-gnu/lib{t.w()}.so (found version \"{t.ver()}\")"
    yield f"-- Performing Test HAVE_{t.w().upper()} - Success"
    yield f"checking for {t.w()}.h... {t.r.choice(('yes', 'no'))}"
    yield "checking whether the C compiler works... yes"
    yield f"make[{t.n(5)}]: Entering directory '/harness/{t.path()}'"
    yield f"make[{t.n(5)}]: Leaving directory '/harness/{t.path()}'"
    yield f"make: *** [Makefile:{t.n(400)}: {t.w()}] Error {t.n(3)}"
    yield f"make[{t.n(5)}]: Nothing to be done for 'all'."
    yield f"{o}.c:{t.n(900)}:{t.n(80)}: warning: unused variable '{t.w()}' [-Wunused-variable]"
    yield f"{o}.cpp:{t.n(900)}:{t.n(80)}: error: no member named '{t.w()}' in '{t.cls()}'"
    yield f"{t.n(400):3}/{t.n(400)} Test #{t.n(400)}: {t.w()}_{t.w()} ......................   Passed    {t.sec(9)} sec"
    yield f"PASS: test_{t.w()}"


def rust(t):
    yield f"   Compiling {t.w()}-{t.w()} v{t.ver()}"
    yield f"  Downloaded {t.w()} v{t.ver()}"
    yield f"    Finished `release` profile [optimized] target(s) in {t.sec(300)}s"
    yield f"test {t.w()}::tests::{t.w()}_{t.w()} ... ok"
    yield f"test result: ok. {t.n(300)} passed; 0 failed; {t.n(9)} ignored; 0 measured; 0 filtered out; finished in {t.sec(9)}s"
    yield f"warning: unused variable: `{t.w()}`"
    yield f"  --> src/{t.w()}/{t.w()}.rs:{t.n(900)}:{t.n(80)}"
    yield f"     Running unittests src/lib.rs (target/debug/deps/{t.w()}-{t.hex(16)})"


def infra(t):
    name = f"aws_{t.w()}_{t.w()}.{t.w()}"
    yield f"{t.color(1, f'module.{t.w()}.{name}')}: Refreshing state... [id={t.w()}-{t.hex(17)}]{ESC}[0m"
    yield f"{name}: Creating..."
    yield f"{name}: Still creating... [{t.n(9)}m{t.n(60)}s elapsed]"
    yield f"{name}: Creation complete after {t.n(90)}s [id={t.hex(17)}]"
    yield f"  {t.color(32, '+')} {t.w()}_{t.w()} = \"{t.w()}\""
    yield f"  {t.color(33, '~')} {t.w()} = \"{t.w()}\" -> (known after apply)"
    yield f"Plan: {t.n(30)} to add, {t.n(30)} to change, {t.n(9)} to destroy."
    yield f"Apply complete! Resources: {t.n(30)} added, {t.n(9)} changed, 0 destroyed."
    yield f"deployment.apps/{t.w()}-{t.w()} configured"
    yield f"service/{t.w()} unchanged"
    yield f"{t.w()}-{t.w()}-{t.hex(9)}-{t.hex(5)}   1/1     Running   {t.n(4)}          {t.n(60)}m"
    yield f"Waiting for deployment \"{t.w()}\" rollout to finish: {t.n(9)} of {t.n(9)} updated replicas are available..."
    yield f"deployment \"{t.w()}\" successfully rolled out"
    yield f"Release \"{t.w()}\" has been upgraded. Happy Helming!"
    yield f"TASK [{t.w()} : install {t.w()}] " + "*" * t.n(60)
    yield f"changed: [{t.host()}]"
    yield f"ok: [{t.host()}]"


def distro(t):
    p = f"lib{t.w()}{t.n(9)}"
    yield f"Get:{t.n(200)} http://deb.debian.org/debian bookworm/main amd64 {p} amd64 {t.ver()}-{t.n(9)} [{t.size()}]"
    yield f"Hit:{t.n(9)} http://security.debian.org/debian-security bookworm-security InRelease"
    yield f"Selecting previously unselected package {p}:amd64."
    yield f"Preparing to unpack .../{t.n(99):02}-{p}_{t.ver()}_amd64.deb ..."
    yield f"Unpacking {p}:amd64 ({t.ver()}-{t.n(9)}) ..."
    yield f"Setting up {p}:amd64 ({t.ver()}-{t.n(9)}) ..."
    yield "Reading package lists..."
    yield "Building dependency tree..."
    yield f"Fetched {t.size()} in {t.n(60)}s ({t.size()}/s)"
    yield f"({t.n(99)}/{t.n(99)}) Installing {t.w()}-libs ({t.ver()}-r{t.n(9)})"
    yield f"Executing busybox-{t.ver()}-r{t.n(9)}.trigger"
    yield f"OK: {t.n(500)} MiB in {t.n(99)} packages"


def transfer(t):
    yield "  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current"
    yield f"{t.n(100):3} {t.n(99)}.{t.n(9)}M  {t.n(100):3} {t.n(99)}.{t.n(9)}M    0     0  {t.n(9999)}k      0  0:00:{t.n(60):02}  0:00:{t.n(60):02} --:--:-- {t.n(9999)}k"
    yield f"upload: {t.path()}/{t.w()}.zip to s3://{t.w()}-{t.w()}/{t.path()}/{t.w()}.zip"
    yield f"Completed {t.size()}/{t.size()} ({t.size()}/s) with {t.n(9)} file(s) remaining"
    yield f"HTTP/1.1 {t.r.choice((200, 201, 204, 404, 500))} OK"
    yield f"Cache restored from key: {t.w()}-{t.hex(16)}"
    yield f"Archiving {t.path()}/node_modules to cache"
    yield f"{t.n(100)}% |{'█' * t.n(30)}| {t.size()}/{t.size()}"
    yield f"{t.w()}: {t.w()} {t.w()} = {t.n()} ({t.sec()} ms)"


TOOLS = (shell, git, maven, maven, gradle, npm, npm, golang, golang, docker, docker, python, python,
         native, rust, infra, distro, transfer)


def lines_of(tool, t, count):
    """Lines as the tool would say them: few kinds at a time, and often the same again."""
    kinds = None
    for _ in range(count):
        said = list(tool(t))
        if kinds is None or t.r.random() < 0.05:
            kinds = t.r.sample(range(len(said)), min(len(said), t.r.randrange(1, 5)))
        yield said[t.r.choice(kinds) % len(said)]


def go_json(text):
    """A JSON string the way Go's encoder writes it."""
    out = json.dumps(text, ensure_ascii=False)
    for c in "<>&":
        out = out.replace(c, f"\\u{ord(c):04x}")
    return out


def body(rnd):
    """A body of PUT /stream, as lite-engine sends it once a second."""
    t = Talk(rnd)
    count = rnd.choice((1, 2, 3, 5, 8, 12, 20, 30, 40))
    pos = rnd.choice((0, rnd.randrange(100), rnd.randrange(10000)))
    hour, minute, second = rnd.randrange(24), rnd.randrange(60), rnd.randrange(60)
    nanos = sorted(rnd.randrange(10**9) for _ in range(count))
    day = f"202{rnd.randrange(6, 9)}-{rnd.randrange(1, 13):02}-{rnd.randrange(1, 29):02}"
    rows = []
    for i, text in enumerate(lines_of(rnd.choice(TOOLS), t, count)):
        stamp = f"{day}T{hour:02}:{minute:02}:{second:02}.{nanos[i]:09}".rstrip("0").rstrip(".")
        rows.append(f'{{"level":"info","pos":{pos + i},"out":{go_json(text + chr(10))},'
                    f'"time":"{stamp}Z","args":null}}')
    return "[" + ",".join(rows) + "]\n"


def write_samples(folder, seed=SEED, count=BODIES):
    rnd = random.Random(seed)
    for i in range(count):
        with open(os.path.join(folder, f"{i:05}.json"), "w", encoding="utf-8") as f:
            f.write(body(rnd))


def train(folder, size):
    with tempfile.NamedTemporaryFile() as out:
        names = sorted(os.path.join(folder, n) for n in os.listdir(folder))
        with tempfile.NamedTemporaryFile("w") as listed:
            listed.write("\n".join(names) + "\n")
            listed.flush()
            subprocess.run(["zstd", "-q", "-f", "-1", "--train-cover=k=64,d=8",
                            f"--maxdict={size}", f"--dictID={DICT_ID}", "--filelist", listed.name,
                            "-o", out.name], check=True)
        with open(out.name, "rb") as f:
            return f.read()


def write_c(path, data):
    rows = []
    for i in range(0, len(data), 24):
        rows.append("    " + ",".join(str(b) for b in data[i:i + 24]) + ",")
    with open(path, "w", encoding="utf-8") as f:
        f.write("/*\n"
                " * The zstd dictionary of the spool's frames, trained on made-up build logs.\n"
                " * Written by scripts/make-dictionary.py: change that, not this. Frames name it by\n"
                f" * its ID, {DICT_ID}; spools hold such frames, so this one stays even when a better one\n"
                " * is added.\n"
                " */\n"
                '#include "codec/zdict.h"\n\n'
                "/* clang-format off */\n"
                "const unsigned char zdict_bytes[ZDICT_SIZE] = {\n" + "\n".join(rows) + "\n};\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", help="write the training bodies there and stop")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=BODIES)
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("output", nargs="?")
    args = parser.parse_args()
    if args.samples:
        os.makedirs(args.samples, exist_ok=True)
        write_samples(args.samples, args.seed, args.count)
        return 0
    if not args.output:
        parser.error("OUTPUT.c is missing")
    with tempfile.TemporaryDirectory() as folder:
        write_samples(folder, args.seed, args.count)
        data = train(folder, args.size)
    if len(data) != args.size:
        print(f"the dictionary has {len(data)} bytes instead of {args.size}", file=sys.stderr)
        return 1
    write_c(args.output, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
