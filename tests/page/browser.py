"""A headless Chromium, driven over its remote debugging port: as much of the protocol as the tests need."""
import asyncio
import base64
import concurrent.futures
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import time

import websockets

SLOW = float(os.environ.get('SLOW', '1'))
CHROMIUM = shutil.which('chromium')
ANSWER_S = 20


class Failed(AssertionError):
    """The browser, or a script in the page, says that something went wrong."""


class Browser:
    """One process; pages are tabs of it, each in a context of its own."""

    def __init__(self, directory):
        words = [CHROMIUM, '--headless=new', '--remote-debugging-port=0', f'--user-data-dir={directory}', '--no-first-run',
                 '--disable-gpu', '--disable-extensions', '--disable-background-networking', '--disable-component-update',
                 '--disable-sync', '--hide-scrollbars', '--disable-dev-shm-usage', '--force-color-profile=srgb', '--lang=en-GB']
        if os.geteuid() == 0:
            words.append('--no-sandbox')  # it will not run as root with it
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.address = None
        for line in self.process.stderr:
            found = re.search(r'DevTools listening on (ws://(\S+?)/\S+)', line)
            if found:
                self.address, self.place = found.group(1), found.group(2)
                break
        if not self.address:
            raise Failed('chromium does not start')
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.main = Connection(self.loop, self.address)

    def page(self, url=None, **how):
        context = self.main.call('Target.createBrowserContext')['browserContextId']
        target = self.main.call('Target.createTarget', url='about:blank', browserContextId=context)['targetId']
        page = Page(self, target, context, **how)
        if url:
            page.go(url)
        return page

    def close(self):
        try:
            self.main.call('Browser.close')
            self.process.wait(10)
        except (Failed, subprocess.TimeoutExpired, concurrent.futures.TimeoutError):
            self.process.kill()
            self.process.wait()
        self.loop.call_soon_threadsafe(self.loop.stop)


class Connection:
    """Calls and events of one target."""

    def __init__(self, loop, address, heard=None):
        self.loop, self.heard, self.numbers, self.waiting = loop, heard, itertools.count(1), {}
        self.socket = self.run(lambda: websockets.connect(address, max_size=64 << 20, ping_interval=None))
        asyncio.run_coroutine_threadsafe(self.read(), loop)

    def run(self, make):
        async def wrapped():
            return await make()
        return asyncio.run_coroutine_threadsafe(wrapped(), self.loop).result(ANSWER_S * SLOW)

    async def read(self):
        try:
            async for text in self.socket:
                message = json.loads(text)
                if 'id' in message:
                    self.waiting.pop(message['id']).set_result(message)
                elif self.heard:
                    self.heard(message['method'], message['params'])
        except websockets.ConnectionClosed:
            pass
        for waiting in self.waiting.values():
            waiting.set_result({'error': {'message': 'the connection is closed'}})

    def send(self, method, **params):
        """Without waiting for the answer: from within `heard`."""
        number = next(self.numbers)
        self.waiting[number] = answer = concurrent.futures.Future()
        asyncio.run_coroutine_threadsafe(self.socket.send(json.dumps({'id': number, 'method': method, 'params': params})), self.loop)
        return answer

    def call(self, method, **params):
        answer = self.send(method, **params).result(ANSWER_S * SLOW)
        if 'error' in answer:
            raise Failed(f'{method}: {answer["error"]["message"]}')
        return answer['result']


class Page:
    def __init__(self, browser, target, context, width=1440, height=900, scheme='light', credentials=None):
        self.browser, self.target, self.context = browser, target, context
        self.errors, self.requests, self.credentials, self.asked = [], [], credentials, 0
        self.wire = Connection(browser.loop, f'ws://{browser.place}/devtools/page/{target}', self.heard)
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.wire.call(f'{domain}.enable')
        if credentials is not None:
            self.wire.call('Fetch.enable', handleAuthRequests=True)
        self.size(width, height)
        self.media(scheme)

    def heard(self, method, params):
        if method == 'Runtime.exceptionThrown':
            self.errors.append(params['exceptionDetails'].get('exception', {}).get('description') or params['exceptionDetails']['text'])
        elif method == 'Runtime.consoleAPICalled' and params['type'] == 'error':
            self.errors.append(' '.join(str(a.get('description') or a.get('value')) for a in params['args']))
        elif method == 'Log.entryAdded' and params['entry']['source'] in ('security', 'violation'):
            self.errors.append(params['entry']['text'])
        elif method == 'Network.requestWillBeSent':
            self.requests.append(params['request']['url'])
        elif method == 'Fetch.requestPaused':
            self.wire.send('Fetch.continueRequest', requestId=params['requestId'])
        elif method == 'Fetch.authRequired':
            self.asked += 1
            user = self.credentials.pop(0) if self.credentials else None
            answer = {'response': 'CancelAuth'} if not user else {'response': 'ProvideCredentials', 'username': user[0], 'password': user[1]}
            self.wire.send('Fetch.continueWithAuth', requestId=params['requestId'], authChallengeResponse=answer)

    def size(self, width, height):
        self.wire.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def media(self, scheme, motion='no-preference'):
        self.wire.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme},
                                                               {'name': 'prefers-reduced-motion', 'value': motion}])

    def go(self, url):
        self.wire.call('Page.navigate', url=url)
        self.wait('document.readyState === "complete" && location.href !== "about:blank"')

    def ask(self, script):
        """The value of an expression in the page."""
        got = self.wire.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in got:
            raise Failed(got['exceptionDetails'].get('exception', {}).get('description') or got['exceptionDetails']['text'])
        return got['result'].get('value')

    def wait(self, script, timeout=12, what=None):
        """Until an expression is true; its value."""
        end = time.monotonic() + timeout * SLOW
        while True:
            value = self.ask(script)
            if value:
                return value
            if time.monotonic() > end:
                raise Failed(f'{what or script} did not come true within {timeout * SLOW} s; {self.errors}')
            time.sleep(0.05)

    def text(self, selector):
        return self.ask(f'document.querySelector({json.dumps(selector)})?.textContent')

    def click(self, selector):
        self.ask(f'document.querySelector({json.dumps(selector)}).click()')

    def type(self, selector, text):
        self.ask(f'(() => {{ const i = document.querySelector({json.dumps(selector)}); i.focus(); i.select(); }})()')
        self.wire.call('Input.insertText', text=text)

    def key(self, name, shift=False):
        code = {'Tab': 9, 'Enter': 13, 'Escape': 27, 'ArrowLeft': 37, 'ArrowRight': 39, 'Home': 36}[name]
        for kind in ('keyDown', 'keyUp'):
            self.wire.call('Input.dispatchKeyEvent', type=kind, key=name, code=name, windowsVirtualKeyCode=code, modifiers=8 if shift else 0,
                           **({'text': '\r'} if name == 'Enter' and kind == 'keyDown' else {}))

    def move(self, x, y):
        self.wire.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def picture(self, path, whole=True):
        size = self.wire.call('Page.getLayoutMetrics')['cssContentSize']
        clip = {'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1}
        data = self.wire.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole, **({'clip': clip} if whole else {}))
        with open(path, 'wb') as f:
            f.write(base64.b64decode(data['data']))

    def close(self):
        self.browser.main.call('Target.disposeBrowserContext', browserContextId=self.context)
