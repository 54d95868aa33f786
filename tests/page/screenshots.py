#!/usr/bin/python3
"""Pictures of the status page in situations that are real: a gateway under load, during an outage of its upstream, and
while it catches up; wide and narrow, light and dark.

    TAILRACE=…/tailrace LOAD=…/tests/tools/load screenshots.py DIRECTORY [--seconds 90]"""
import argparse
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
for where in (HERE, HERE.parent, HERE.parent / 'integration', HERE.parent / 'tools'):
    sys.path.insert(0, str(where))

from browser import Browser                              # noqa: E402
from calls import Api                                    # noqa: E402
from gateway import Gateway, wait_for                    # noqa: E402
from proxies import ask, place                           # noqa: E402
from runs import Load                                    # noqa: E402
from standin.harness import Harness                      # noqa: E402

SIZES = {'1440': (1440, 900), '390': (390, 844)}
STEP = 'accountId:kmpySmUISimoRrJL6NL73w/orgId:default/projectId:web/pipelineId:{}/runSequence:{}/level0:pipeline/level1:stages/level2:{}'
PLACES = (('delegate-eu-1', 4), ('delegate-eu-2', 3), ('runner-17', 1))


def users_file(directory):
    path = directory / 'users'
    crypted = subprocess.run(['openssl', 'passwd', '-6', 'secret'], capture_output=True, text=True, check=True).stdout.strip()
    path.write_text(''.join(f'{name}:{crypted}\n' for name, _ in PLACES))
    path.chmod(0o640)
    return str(path)


def credential(name):
    return 'Proxy-Authorization: Basic ' + base64.b64encode(f'{name}:secret'.encode()).decode()


def tunnels(gw, port, stack):
    """Some that stay, and some that are refused."""
    for name, n in PLACES:
        for _ in range(n):
            s, status, _ = ask(gw, f'127.0.0.1:{port}', credential(name))
            assert status == 200
            stack.enter_context(s)
            s.sendall(b'x' * 20000)
        for target in ('registry.example.com:443', '169.254.169.254:80')[:n]:
            ask(gw, target, credential(name))[0].close()


def streams(gw):
    """Named as those of real pipelines are."""
    api = Api(gw.log_url, account='kmpySmUISimoRrJL6NL73w')
    for i, (pipeline, step) in enumerate((('build_and_test', 'compile'), ('build_and_test', 'unit_tests'), ('release', 'image'), ('nightly', 'scan'))):
        api.open(STEP.format(pipeline, 1400 + i, step))
        api.put(STEP.format(pipeline, 1400 + i, step), *[f'{k}\n' for k in range(40 * (i + 1))])
    api.close()


def dead_letter(far, gw):
    fault = far.fault('status', 'blob', code=400, count=None, key='release/notes')
    api = Api(gw.log_url, account='kmpySmUISimoRrJL6NL73w')
    api.open('release/notes')
    api.blob('release/notes', b'{"out":"x"}\n')
    api.close()
    wait_for(lambda: gw.metric('dead_letters') == 1, 60, what='the dead letter')
    far.clear_faults(fault)


def pictures(browser, gw, directory, name, said):
    for size, (width, height) in SIZES.items():
        for scheme in ('light', 'dark'):
            page = browser.page(width=width, height=height, scheme=scheme)
            page.go(f'http://127.0.0.1:{gw.ports["admin"]}/')
            page.wait(f'document.getElementById("headline").textContent !== "One moment" && {said}', 30, what=name)
            page.size(width, page.ask('document.documentElement.scrollHeight'))  # what is in view is asked for
            page.wait('document.querySelectorAll("caption").length > 0 && ![...document.querySelectorAll("td.empty")]'
                      '.some(t => t.textContent === "One moment")', 10, what='all parts')
            page.size(width, page.ask('document.querySelector("footer").offsetTop + 120'))
            page.picture(directory / f'{name}-{size}-{scheme}.png', whole=False)
            page.size(width, height)
            page.picture(directory / f'{name}-{size}-{scheme}-top.png', whole=False)
            page.close()
            print(f'{name} {size} {scheme}: {page.errors or "good"}', flush=True)


def situations(browser, gw, far, directory, args, scratch):
    load = Load(gw.url, scratch / 'ack', steps=60, interval=500, lines=12, bytes=2400, puts=40, again=True, retry_for=600,
                seconds=args.seconds * 2 + 400, kinds='le-blob,le-link,delegate', account='kmpySmUISimoRrJL6NL73w')
    try:
        streams(gw)
        dead_letter(far, gw)
        time.sleep(args.seconds)  # a chart of this many seconds
        pictures(browser, gw, directory, 'load', 'document.getElementById("summary").textContent.includes("each second")')
        far.stop()
        time.sleep(args.seconds)
        pictures(browser, gw, directory, 'outage', 'document.querySelector("td[data-mark=down]") !== null')
        far.start()
        far.fault('delay', 'lines', count=None, seconds=args.slow)
        wait_for(lambda: 'healthy' in gw.get('/api/v1/upstreams')[1], 60, what='the end of the outage')
        pictures(browser, gw, directory, 'catching-up', 'document.getElementById("summary").textContent.startsWith("Catching up")')
    finally:
        load.process.kill()
        load.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('directory', type=Path)
    parser.add_argument('--seconds', type=int, default=90, help='of load, and of the outage')
    parser.add_argument('--slow', type=float, default=2, help='seconds that upstream takes for a delivery when it is back')
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    os.environ['TZ'] = 'UTC'
    with tempfile.TemporaryDirectory() as scratch, Harness() as far, place() as echo, contextlib.ExitStack() as stack:
        scratch = Path(scratch)
        options = {'listen': {'proxy': {'address': '127.0.0.1:0', 'users': users_file(scratch)}}, 'egress': {'profile': 'none'},
                   'rules': {'registry': {'hosts': ['127.0.0.1'], 'ports': ['1-65535']}}, 'log': {'level': 'notice'},
                   'batch': {'lines': 100}}  # so that catching up takes its time
        gw = stack.enter_context(Gateway(scratch / 'gw', far.url, **options))
        browser = Browser(scratch / 'chromium')
        stack.callback(browser.close)
        tunnels(gw, echo.port, stack)
        situations(browser, gw, far, args.directory, args, scratch)


if __name__ == '__main__':
    main()
