"""Faults upstream that are not cells of the matrix (tests/faults), or worth a quick look of their own."""
import email.utils
import threading
import time

import pytest
from calls import Api
from gateway import key, wait_for

STEP = key()


def opened(api, gw, name=STEP):
    assert api.open(name)[0] == 204
    wait_for(lambda: gw.metric('upstream_requests_total', call='open', code='204'), what='the open upstream')


def dead(gw):
    return gw.ledger()['dead']


# --- what is too large, or refused ----------------------------------------------------------------

@pytest.mark.parametrize('fault', [dict(code=413, over=3000), dict(code=400, contains='xxx')])
def test_one_record_is_buried_and_its_stream_goes_on(far, gw, api, fault):
    """A batch of ten with one that is never taken: nine arrive, in order, and what comes later."""
    opened(api, gw)
    held = far.fault('hold', 'lines')
    assert api.put(STEP, 'first\n')[0] == 204
    wait_for(lambda: far.counts()['started'].get('lines'))
    far.fault('status', 'lines', count=None, **fault)
    texts = ['line %d\n' % i if i != 4 else 'x' * 5000 for i in range(10)]
    for i, text in enumerate(texts):
        assert api.put(STEP, text, start=1 + i)[0] == 204
    far.clear_faults(held)
    gw.wait_delivered()
    assert api.put(STEP, 'last\n', start=11)[0] == 204
    gw.wait_delivered()
    assert far.lines('acct', STEP) == ['first\n'] + texts[:4] + texts[5:] + ['last\n']
    assert dead(gw) == 1 and gw.metric('stream_events_total', event='dead') == 1
    assert any('level=error' in line and 'dead letter' in line and 'key=' in line for line in gw.log().splitlines())


# --- credentials ------------------------------------------------------------------------------------

def test_a_refused_credential_holds_its_own_streams_and_alerts(far, gw, api):
    """Of one account even: streams that came with another token go on. When it is good again, nothing is lost."""
    other = Api(gw.log_url, account='acct2', token='token-2')
    opened(api, gw)
    opened(other, gw, key('other'))
    wait_for(lambda: gw.metric('upstream_requests_total', call='open', code='204') == 2)
    assert gw.metric('credentials_refused') == 0
    far.tokens(bad=['token-2'])
    assert other.put(key('other'), 'held\n')[0] == 204
    wait_for(lambda: gw.metric('credentials_refused') == 1)
    assert any('level=error' in line and 'credential' in line and 'acct2' in line for line in gw.log().splitlines())
    assert 'token-2' not in gw.log()
    asked = far.counts()['started']['lines']
    for i in range(5):
        assert api.put(STEP, 'line %d\n' % i, start=i)[0] == 204
    wait_for(lambda: far.lines('acct', STEP) == ['line %d\n' % i for i in range(5)])
    assert [e['key'] for e in far.log('lines')][asked:].count(key('other')) == 0, 'it is held'
    wait_for(lambda: gw.ledger()['spooled'] == 1)
    ledger = gw.ledger()
    assert ledger['dead'] == ledger['refused'] == 0
    other.close()


@pytest.mark.parametrize('code', [400, 401, 403])
def test_a_refused_link_is_replaced(far, gateway_at, code):
    """The store's 4xx about a link is no verdict on the log: a fresh link, and the same bytes."""
    gw = gateway_at(far.url, harness={'upload-gzip': False})
    api = Api(gw.log_url)
    opened(api, gw)
    data = b'{"level":"info","pos":0,"out":"x\\n","time":"2026-08-21T09:56:10Z","args":null}\n' * 50
    far.fault('status', 'put-object', code=code, body='<Error><Code>ExpiredToken</Code></Error>')
    assert api.put_link(STEP, data)[0] == 200
    gw.wait_delivered()
    assert far.blob('acct', STEP) == data
    links = [e['target'] for e in far.log('put-object')]
    assert len(links) == 2 and len(far.log('link')) == 2
    assert gw.ledger('blobs')['dead'] == 0
    api.close()


# --- Retry-After ------------------------------------------------------------------------------------

def asked_again_after(far, gw, api, value):
    """Seconds between a 503 with that Retry-After and the next request."""
    opened(api, gw)
    far.fault('status', 'lines', code=503, headers={'Retry-After': value})
    assert api.put(STEP, 'line\n')[0] == 204
    gw.wait_delivered()
    assert far.lines('acct', STEP) == ['line\n']
    first, second = far.log('lines')
    return second['at'] - first['at']


def test_retry_after_in_seconds(far, gw, api):
    assert 0.95 <= asked_again_after(far, gw, api, '1') < 8


def test_retry_after_as_a_date(far, gw, api):
    """Whole seconds: two from now is one at least."""
    when = email.utils.formatdate(time.time() + 3, usegmt=True)
    assert 1.5 <= asked_again_after(far, gw, api, when) < 10


@pytest.mark.parametrize('value', ['soon', '-3600', '1e9', 'Sun, 06 Nov 1994 08:49:37 GMT', '9999 bottles', ''])
def test_retry_after_that_is_nonsense_is_left_to_the_backoff(far, gw, api, value):
    assert asked_again_after(far, gw, api, value) < 5


# --- flapping ---------------------------------------------------------------------------------------

def test_flapping_does_not_wedge_delivery(far, gw, api):
    """Up and down for two seconds while twenty streams write. Afterwards it flows as if nothing had been."""
    names = [key('flap%d' % i) for i in range(20)]
    for name in names:
        assert api.open(name)[0] == 204
    wait_for(lambda: gw.metric('upstream_requests_total', call='open', code='204') == 20)
    over = threading.Event()

    def flap():
        for _ in range(8):
            far.stop()
            time.sleep(0.1)
            far.start()
            time.sleep(0.15)
        over.set()
    thread = threading.Thread(target=flap)
    thread.start()
    count = 0
    while not over.is_set():
        for name in names:
            assert api.put(name, 'line %d\n' % count, start=count)[0] == 204
        count += 1
    thread.join()
    gw.wait_delivered()
    for name in names:
        lines = far.lines('acct', name)
        assert sorted(set(lines), key=lines.index) == ['line %d\n' % i for i in range(count)]
    for name in names:
        assert api.put(name, 'at once\n', start=count)[0] == 204
    wait_for(lambda: all(far.lines('acct', name)[-1] == 'at once\n' for name in names), 3, what='delivery at once')
    wait_for(lambda: gw.metric('upstream_state', upstream='harness') == 0, 5, what='a healthy upstream')
    duplicates = sum(r['duplicates'] for r in far.state(lines=False)['records'].values())
    assert duplicates <= gw.metric('lines_resent_total')
    assert gw.ledger()['dead'] == gw.ledger()['refused'] == 0
