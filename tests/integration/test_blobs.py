"""Blobs: routes, links, gzip, settling, sizes; what is stored is what was sent, by every way of reading."""
import gzip
import hashlib
import http.client
import io
import json
import random
import tarfile
import time
from urllib.parse import quote, urlsplit

import pytest

from frames import sanitized
from gateway import key, wait_for
from standin.harness import Harness

TOKEN = 'token-secret-1'
ACCOUNT = 'acct'


class Api:
    """The log API as a client without any cleverness calls it."""

    def __init__(self, log_url, token=TOKEN):
        self.base, self.token = urlsplit(log_url), token

    def send(self, method, url, body=None, headers=None):
        """(status, headers, body) of one request on a connection of its own; `url` goes out as it is."""
        at = urlsplit(url)
        conn = http.client.HTTPConnection(at.netloc, timeout=30)
        target = url.split(at.netloc, 1)[1]
        try:
            conn.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                conn.putheader(name, value)
            if self.token:
                conn.putheader('X-Harness-Token', self.token)
            if body is not None or method != 'GET':
                conn.putheader('Content-Length', str(len(body or b'')))
            conn.endheaders()
            for at in range(0, len(body or b''), 65536):
                conn.send(body[at:at + 65536])
            answer = conn.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            conn.close()

    def call(self, method, path, name, body=None, more=''):
        url = '%s://%s%s%s?accountID=%s&key=%s%s' % (
            self.base.scheme, self.base.netloc, self.base.path, path, ACCOUNT, name, more)
        return self.send(method, url, body)

    def post_blob(self, name, body):
        assert self.call('POST', '/blob', name, body)[0] in (200, 204)

    def link(self, name):
        status, _, body = self.call('POST', '/blob/link/upload', name)
        assert status == 200
        return json.loads(body)['link']

    def put_by_link(self, name, body):
        link = self.link(name)
        assert 200 <= self.send('PUT', link, body)[0] < 300
        return link

    def upload(self, form, name, body):
        (self.put_by_link if form == 'link' else self.post_blob)(name, body)

    def get_blob(self, name):
        status, _, body = self.call('GET', '/blob', name)
        return body if status == 200 else None

    def lines(self, name, texts):
        body = json.dumps([line(i, text) for i, text in enumerate(texts)]).encode()
        return self.call('PUT', '/stream', name, body)[0]


def line(pos, text):
    return {'level': 'info', 'pos': pos, 'out': text, 'time': '2026-08-21T09:56:10.123456789Z', 'args': None}


def ndjson(n, size=60):
    """A blob as lite-engine writes one; compresses well."""
    return b''.join(json.dumps(line(i, 'building %06d %s\n' % (i, 'x' * size))).encode() + b'\n' for i in range(n))


def noise(n, seed=7):
    return random.Random(seed).randbytes(n)


def stored(far, name):
    return far.state(key=name, lines=False)['blobs'].get(ACCOUNT + '/' + name)


def requests(far, call):
    """{status: count}"""
    return far.counts()['requests'].get(call, {})


def through_link(far, name, headers=None):
    """What a reader gets from a download link, with the coding that the answer names."""
    status, fields, body = Api(far.log_url, None).send('GET', far.link(ACCOUNT + '/' + name, 'GET'), None, headers)
    assert status == 200
    return {k.lower(): v for k, v in fields.items()}.get('content-encoding'), body


def assert_reads_as(far, name, content):
    """By the log service, and by a link with and without gzip."""
    assert Api(far.log_url).get_blob(name) == content
    assert far.blob(ACCOUNT, name) == content
    coding, body = through_link(far, name)
    assert coding is None and body == content
    coding, body = through_link(far, name, {'Accept-Encoding': 'gzip'})
    assert (gzip.decompress(body) if coding == 'gzip' else body) == content


def assert_clean(far, gw):
    """Nothing of the log service's at the store, nothing secret in the log or the metrics."""
    assert far.state(lines=False)['store']['leaks'] == []
    said = gw.log() + gw.get('/metrics')[1]
    for secret in (TOKEN, 'Signature=', 'X-Amz-', 'X-Goog-Sig'):
        assert secret not in said
    for entry in far.log('put-object'):
        names = [name.lower() for name, _ in entry['headers']]
        assert not [n for n in names if n.startswith(('x-', 'authorization', 'content-type', 'expect', 'transfer'))]
        assert names.count('content-length') == 1 and names.count('host') == 1


# --- the table of upload-logs -------------------------------------------------------------------

ROUTES = [('follow', 'post', 'blob'), ('follow', 'link', 'put-object'),
          ('harness', 'post', 'blob'), ('harness', 'link', 'blob'),
          ('googleapis', 'post', 'put-object'), ('googleapis', 'link', 'put-object')]


@pytest.mark.parametrize('upload, form, via', ROUTES)
def test_route(far, gateway_at, upload, form, via):
    gw = gateway_at(far.url, harness={'upload-logs': upload})
    name, content = key('r'), ndjson(20)
    Api(gw.log_url).upload(form, name, content)
    gw.wait_delivered()
    assert stored(far, name)['via'] == via
    assert_reads_as(far, name, content)
    other = 'put-object' if via == 'blob' else 'blob'
    assert not requests(far, other)
    assert bool(requests(far, 'link')) == (via == 'put-object')
    assert gw.ledger('blobs') == {**gw.ledger('blobs'), 'accepted': 1, 'delivered': 1}
    assert_clean(far, gw)


@pytest.mark.parametrize('upload', ['follow', 'harness', 'googleapis'])
@pytest.mark.parametrize('size', [0, 1, 65536, 65537, 262144, 262145, 1000000])
def test_sizes(far, gateway_at, upload, size):
    gw = gateway_at(far.url, harness={'upload-logs': upload})
    content = noise(size)
    Api(gw.log_url).upload('link', key('s'), content)
    gw.wait_delivered()
    assert far.blob(ACCOUNT, key('s')) == content
    assert_clean(far, gw)


def test_keys_are_spelled_as_the_client_did(far, gateway_at):
    """Raw and percent-encoded (HP 1.11), by both routes."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    for form, run in (('post', 1), ('link', 2)):
        api.upload(form, quote(key('enc', run), safe=''), b'encoded\n')
        api.upload(form, key('raw', run) + '%20b+c', b'raw\n')
    gw.wait_delivered()
    for run in (1, 2):
        assert far.blob(ACCOUNT, key('enc', run)) == b'encoded\n'
        assert far.blob(ACCOUNT, key('raw', run) + ' b c') == b'raw\n'


@pytest.mark.parametrize('options', [
    {'link_form': 'goog'}, {'strict_entity_headers': True}, {'joined_hash': False},
    {'transcode': False}, {'store_prefix': 'a~b/x_y/'}])
def test_kinds_of_links(gateway_at, options):
    with Harness(**options) as far:
        gw = gateway_at(far.url)
        name, content = key('k'), ndjson(100)
        Api(gw.log_url).upload('link', name, content)
        gw.wait_delivered()
        assert far.blob(ACCOUNT, name) == content
        assert far.state(lines=False)['store']['refused'] == {}
        assert_clean(far, gw)


def test_over_tls(ca, gateway_at):
    cert = ca.issue('127.0.0.1')
    with Harness(tls=cert, store_tls=True) as far:
        gw = gateway_at(far.url, upstream={'ca': str(ca.ca)})
        api = Api(gw.log_url)
        for i, form in enumerate(('post', 'link')):
            api.upload(form, key('tls', i), ndjson(2000))
            api.upload(form, key('big', i), noise(3000000))
        gw.wait_delivered()
        for i in (0, 1):
            assert far.blob(ACCOUNT, key('tls', i)) == ndjson(2000)
            assert far.blob(ACCOUNT, key('big', i)) == noise(3000000)
        assert_clean(far, gw)


# --- large and strange bodies --------------------------------------------------------------------

@pytest.mark.parametrize('upload', ['harness', 'googleapis'])
def test_fifty_megabytes(far, gateway_at, upload):
    gw = gateway_at(far.url, harness={'upload-logs': upload})
    api = Api(gw.log_url)
    api.upload('link', key('small'), noise(2000000, 1))     # what is needed once is there now
    gw.wait_delivered()
    before = gw.rss_kb(peak=True)
    content = noise(50 * 1000 * 1000)
    api.upload('link', key('large'), content)
    gw.wait_delivered(60)
    grown = gw.rss_kb(peak=True) - before
    assert hashlib.sha256(far.blob(ACCOUNT, key('large'))).digest() == hashlib.sha256(content).digest()
    if not sanitized():
        assert grown < 2 * 1024, f'{grown} KiB'


@pytest.mark.parametrize('upload', ['follow', 'googleapis', 'harness'])
def test_archive(far, gateway_at, upload):
    """A support bundle (HP 1.8): no NDJSON, compressed already, never compressed again."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:gz') as tar:
        for i in range(5):
            info = tarfile.TarInfo('pod%d.log' % i)
            info.size = 200000
            tar.addfile(info, io.BytesIO(noise(200000, i)))
    gw = gateway_at(far.url, harness={'upload-logs': upload})
    Api(gw.log_url).upload('link', 'bundle/support-bundle.tar.gz', packed.getvalue())
    gw.wait_delivered()
    blob = stored(far, 'bundle/support-bundle.tar.gz')
    assert blob['encoding'] is None
    assert far.blob(ACCOUNT, 'bundle/support-bundle.tar.gz', inflate=False) == packed.getvalue()


# --- trouble ---------------------------------------------------------------------------------------

def test_wrong_checksum_is_repeated(far, gateway_at):
    gw = gateway_at(far.url)
    far.fault('wrong_crc', 'put-object', count=2)
    content = noise(300000)
    Api(gw.log_url).upload('link', key('c'), content)
    gw.wait_delivered()
    assert stored(far, key('c'))['puts'] == 3
    assert far.blob(ACCOUNT, key('c')) == content
    assert gw.metric('blob_hash_mismatch_total') == 2
    assert gw.ledger('blobs')['dead'] == 0


def test_refused_link_is_replaced_at_once(far, gateway_at):
    gw = gateway_at(far.url)
    far.fault('status', 'put-object', code=403, count=1)
    Api(gw.log_url).upload('link', key('f'), noise(5000))
    gw.wait_delivered()
    refused = [e for e in far.log('put-object') if e['status'] == 403][0]
    assert far.log('link')[1]['at'] - refused['at'] < 1, 'without the pause of a failure'
    assert requests(far, 'put-object') == {'403': 1, '200': 1} and requests(far, 'link') == {'200': 2}
    assert far.blob(ACCOUNT, key('f')) == noise(5000)


@pytest.mark.parametrize('code, body', [(403, 'x'), (400, '<Code>ExpiredToken</Code>'), (400, 'bad'), (404, 'x'),
                                        (500, 'x'), (503, 'x'), (429, 'x'), (301, 'x'), (412, 'x')])
def test_no_answer_of_the_store_is_final(far, gateway_at, code, body):
    gw = gateway_at(far.url)
    fault = far.fault('status', 'put-object', code=code, body=body, count=None)
    Api(gw.log_url).upload('link', key('n'), ndjson(50))
    wait_for(lambda: requests(far, 'put-object').get(str(code), 0) >= 4, 20)
    assert gw.ledger('blobs')['spooled'] == 1
    far.clear_faults(fault)
    gw.wait_delivered(40)
    assert gw.ledger('blobs') == {**gw.ledger('blobs'), 'dead': 0, 'delivered': 1}
    assert_reads_as(far, key('n'), ndjson(50))
    assert_clean(far, gw)


@pytest.mark.parametrize('mode', ['body', 'truncated', 'protocol'])
def test_links_that_are_none(far, gateway_at, mode):
    gw = gateway_at(far.url)
    far.fault('corrupt', 'link', mode=mode, count=2)
    far.fault('status', 'link', code=204, count=1)
    far.fault('status', 'link', code=200, body='{"link": ""}', count=1)
    Api(gw.log_url).upload('link', key('l'), b'kept\n')
    gw.wait_delivered(30)
    assert far.blob(ACCOUNT, key('l')) == b'kept\n'
    assert gw.ledger('blobs')['dead'] == 0


@pytest.mark.parametrize('kind, args', [
    ('reset', {'where': 'mid_body'}), ('execute_lost', {}), ('close', {}), ('reset', {'where': 'mid_answer'}),
    ('interim', {}), ('status', {'code': 503, 'when': 'before_body'})])
@pytest.mark.parametrize('call', ['blob', 'put-object'])
def test_broken_connections(far, gateway_at, call, kind, args):
    gw = gateway_at(far.url)
    far.fault(kind, call, count=2, **args)
    content = noise(700000)
    Api(gw.log_url).upload('link' if call == 'put-object' else 'post', key('b'), content)
    gw.wait_delivered(30)
    assert far.blob(ACCOUNT, key('b')) == content


def test_link_older_than_its_hour(far, gateway_at):
    """The store is silent for two hours; the link that was fetched before is not used afterwards."""
    gw = gateway_at(far.url)
    far.hang(main=False)
    Api(gw.log_url).upload('link', key('old'), ndjson(10))
    far.wait(lambda h: requests(h, 'link').get('200'))
    far.advance(7200)
    far.speak(main=False)
    gw.wait_delivered()
    assert far.state(lines=False)['store']['refused'].get('expired', 0) <= 1
    assert_reads_as(far, key('old'), ndjson(10))
    assert gw.ledger('blobs')['dead'] == 0


def test_outage_longer_than_a_link(far, gateway_at):
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    api.post_blob(key('first'), b'1\n')
    gw.wait_delivered()
    far.stop()
    link = api.link(key('o'))
    assert api.send('PUT', link, ndjson(10))[0] < 300
    assert api.send('PUT', api.link(key('p')), noise(600000))[0] < 300
    far.advance(3 * 3600)
    far.start()
    gw.wait_delivered(30)
    assert_reads_as(far, key('o'), ndjson(10))
    assert far.blob(ACCOUNT, key('p')) == noise(600000)
    assert far.state(lines=False)['store']['refused'] == {}


def test_a_store_that_is_down_holds_up_nothing_else(far, gateway_at):
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    far.stop(main=False)
    for run in range(100):
        api.put_by_link(key('held', run), ndjson(3))
    api.call('POST', '/stream', key('live'))
    assert api.lines(key('live'), ['hello\n']) == 204
    api.post_blob(key('posted'), b'1\n')
    far.wait(lambda h: h.lines(ACCOUNT, key('live')) == ['hello\n'] and h.blob(ACCOUNT, key('posted')), 20)
    wait_for(lambda: gw.ledger('blobs')['spooled'] == 100)
    asked = sum(requests(far, 'link').values())
    far.start(main=False)
    gw.wait_delivered(40)
    assert all(far.blob(ACCOUNT, key('held', run)) == ndjson(3) for run in range(100))
    assert asked < 400, 'links are asked for in vain'


def test_refused_blob_is_a_dead_letter(far, gateway_at):
    """A 4xx to POST /blob, while the token is good (HP 1.3)."""
    gw = gateway_at(far.url)
    far.fault('status', 'blob', code=400, count=None)
    Api(gw.log_url).post_blob(key('d'), b'bad\n')
    wait_for(lambda: gw.ledger('blobs')['dead'] == 1)
    assert requests(far, 'exists')


def test_refused_link_call(far, gateway_at):
    """400 is the service's own refusal; another 4xx comes from something in between, and may pass."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    for code in (403, 404, 413):
        far.fault('status', 'link', code=code, count=2)
    api.upload('link', key('between'), b'kept\n')
    gw.wait_delivered(30)
    assert gw.ledger('blobs')['dead'] == 0 and far.blob(ACCOUNT, key('between')) == b'kept\n'
    far.fault('status', 'link', code=400, count=None)
    api.upload('link', key('own'), b'bad\n')
    wait_for(lambda: gw.ledger('blobs')['dead'] == 1)


def test_refused_token_kills_no_blob(far, gateway_at):
    gw = gateway_at(far.url)
    far.tokens(bad=[TOKEN])
    for i, form in enumerate(('post', 'link')):
        Api(gw.log_url).upload(form, key('t', i), b'kept\n')
    far.wait(lambda h: requests(h, 'exists').get('400', 0) >= 2)
    assert gw.ledger('blobs') == {**gw.ledger('blobs'), 'dead': 0, 'spooled': 2}
    far.tokens(good=[TOKEN])
    Api(gw.log_url, TOKEN).post_blob(key('t', 2), b'1\n')


def test_blobs_outlive_the_process(far, gateway_at):
    gw = gateway_at(far.url)
    far.stop()
    api = Api(gw.log_url)
    link = api.link(key('later'))
    api.put_by_link(key('l'), ndjson(5000))
    api.post_blob(key('p'), noise(900000))
    gw.kill()
    far.start()
    gw.start()
    assert api.send('PUT', link, b'by an old ticket\n')[0] < 300
    gw.wait_delivered(30)
    assert_reads_as(far, key('l'), ndjson(5000))
    assert far.blob(ACCOUNT, key('p')) == noise(900000)
    assert far.blob(ACCOUNT, key('later')) == b'by an old ticket\n'


@pytest.mark.parametrize('other', ['/proxied/log-service', '/x/y/log-service'])
def test_a_ticket_is_served_by_the_prefix_in_it(far, gateway_at, other):
    """Something between may have changed the path; what was sealed says where the log goes."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    link = api.link(key('moved'))
    moved = link.replace('/log-service/', other + '/')
    assert moved != link and api.send('PUT', moved, b'{"out":"moved"}\n')[0] == 200
    gw.wait_delivered()
    assert far.blob(ACCOUNT, key('moved')) == b'{"out":"moved"}\n'
    targets = [call['target'] for call in far.log() if key('moved') in call['target']]
    assert targets and all(target.startswith('/log-service/') for target in targets if 'accountID' in target)


@pytest.mark.parametrize('where', ['main', 'store', 'check'])
def test_stopped_in_the_middle(far, gateway_at, where):
    """Requests under way, some that wait for the store, and a trial: all are done after the next start."""
    gw = gateway_at(far.url, drain={'limit': '1s'})
    api = Api(gw.log_url)
    if where == 'check':
        far.fault('stall', 'get-blob', count=1)
    else:
        far.hang(main=where == 'main', store=True)
    bodies = {key('m', run): (noise(400000, run) if run % 2 else ndjson(900)) for run in range(60)}
    for run, (name, body) in enumerate(bodies.items()):
        api.upload('link' if run % 3 else 'post', name, body)
    if where != 'main':
        far.wait(lambda h: sum(requests(h, 'link').values()) >= 40)
    gw.stop()
    far.speak()
    far.clear_faults()
    gw.start()
    gw.wait_delivered(30)
    for name, body in bodies.items():
        assert far.blob(ACCOUNT, name) == body


# --- gzip ----------------------------------------------------------------------------------------

def shapes(gw):
    return {state: gw.metric('gzip_shapes', state=state) for state in ('unknown', 'trying', 'trusted', 'refused')}


def test_gzip_is_verified_and_then_trusted(far, gateway_at):
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    content = ndjson(3000)
    api.upload('link', key('g', 1), content)
    gw.wait_delivered()
    assert stored(far, key('g', 1))['encoding'] == 'gzip' and stored(far, key('g', 1))['size'] < len(content) / 4
    assert requests(far, 'get-blob') == {'200': 1} and requests(far, 'get-object') == {'200': 2}
    assert requests(far, 'download-link') == {'200': 1}
    assert shapes(gw) == {'unknown': 0, 'trying': 0, 'trusted': 1, 'refused': 0}
    for run in range(2, 6):
        api.upload('link', key('g', run), content)
    gw.wait_delivered()
    assert requests(far, 'get-object') == {'200': 2}, 'verified once'
    for run in range(1, 6):
        assert stored(far, key('g', run))['encoding'] == 'gzip'
        assert_reads_as(far, key('g', run), content)
    assert_clean(far, gw)

    asked = requests(far, 'get-object')
    gw.stop()
    gw.start()
    api.upload('link', key('g', 6), content)
    gw.wait_delivered()
    assert stored(far, key('g', 6))['encoding'] == 'gzip' and requests(far, 'get-object') == asked
    assert shapes(gw)['trusted'] == 1


@pytest.mark.parametrize('options', [{'transcode': False}, {'blob_get_inflates': False}])
def test_gzip_is_refused_where_it_reads_back_otherwise(gateway_at, options):
    with Harness(**options) as far:
        gw = gateway_at(far.url)
        api = Api(gw.log_url)
        content = ndjson(3000)
        api.upload('link', key('s', 1), content)
        gw.wait_delivered()
        assert [h[2] for h in stored(far, key('s', 1))['history']] == ['gzip', None]
        api.upload('link', key('s', 2), content)
        gw.wait_delivered()
        assert stored(far, key('s', 2))['history'] == [['put-object', len(content), None]]
        assert shapes(gw) == {'unknown': 0, 'trying': 0, 'trusted': 0, 'refused': 1}
        for run in (1, 2):
            assert_reads_as(far, key('s', run), content)
        gw.kill()
        gw.start()
        api.upload('link', key('s', 3), content)
        gw.wait_delivered()
        assert stored(far, key('s', 3))['puts'] == 1, 'remembered'


@pytest.mark.parametrize('code', [400, 403, 411, 415])
def test_gzip_that_the_store_will_not_take(far, gateway_at, code):
    gw = gateway_at(far.url)
    far.fault('status', 'put-object', code=code, match={'header': 'content-encoding'}, count=None)
    api = Api(gw.log_url)
    for run in (1, 2):
        api.upload('link', key('w', run), ndjson(500))
        gw.wait_delivered()
        assert stored(far, key('w', run))['history'] == [['put-object', len(ndjson(500)), None]]
    assert shapes(gw)['refused'] == 1
    assert requests(far, 'put-object').get(str(code)) == (2 if code == 403 else 1)
    assert_reads_as(far, key('w', 1), ndjson(500))


@pytest.mark.parametrize('call', ['get-blob', 'download-link', 'get-object', 'put-object'])
@pytest.mark.parametrize('kind, args', [('status', {'code': 500}), ('close', {})])
def test_gzip_trial_that_tells_nothing(far, gateway_at, call, kind, args):
    gw = gateway_at(far.url)
    far.fault(kind, call, count=1, **args)
    api = Api(gw.log_url)
    api.upload('link', key('u'), ndjson(500))
    gw.wait_delivered()
    assert stored(far, key('u'))['encoding'] is None
    assert_reads_as(far, key('u'), ndjson(500))
    assert shapes(gw) == {'unknown': 1, 'trying': 0, 'trusted': 0, 'refused': 0}


def test_gzip_one_trial_at_a_time(far, gateway_at):
    gw = gateway_at(far.url)
    far.fault('delay', 'get-blob', seconds=1)
    api = Api(gw.log_url)
    for run in range(8):
        api.upload('link', key('m', run), ndjson(500))
    gw.wait_delivered()
    codings = [stored(far, key('m', run))['encoding'] for run in range(8)]
    assert codings.count('gzip') == 1 and requests(far, 'get-blob') == {'200': 1}
    for run in range(8):
        assert_reads_as(far, key('m', run), ndjson(500))


def test_killed_in_a_trial(far, gateway_at):
    """The store has gzip that nobody has verified; the blob is still in the spool, and goes again."""
    gw = gateway_at(far.url)
    far.config(transcode=False)
    far.fault('stall', 'get-blob', count=1)
    Api(gw.log_url).upload('link', key('x'), ndjson(500))
    far.wait(lambda h: stored(h, key('x')))
    gw.kill()
    gw.start()
    gw.wait_delivered()
    assert_reads_as(far, key('x'), ndjson(500))


def test_small_bodies_and_the_harness_route_stay_plain(far, gateway_at):
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    api.upload('link', key('small'), b'{"out":"x"}\n' * 10)
    api.upload('post', key('posted'), ndjson(1000))
    gw.wait_delivered()
    assert stored(far, key('small'))['encoding'] is None and stored(far, key('posted'))['encoding'] is None
    assert not requests(far, 'get-blob')


# --- settling ------------------------------------------------------------------------------------

def outs(blob):
    return [json.loads(text)['out'] for text in blob.splitlines()]


def lose_lines(far, gw, name, foreign=True):
    """A delegate's stream that SaaS closed by itself; lines that come later are answered 200 (HP 7a)."""
    api = Api(gw.log_url)
    api.call('POST', '/stream', name)
    assert api.lines(name, ['a\n', 'b\n']) == 204
    gw.wait_delivered()
    if foreign:
        far.foreign(ACCOUNT, name, close=True, prefix=True, snapshot=True)
    else:
        far.foreign(ACCOUNT, name, close=True)
    held = far.fault('hold', 'lines')   # both are there before upstream says that it does not know them
    assert api.lines(name, ['c\n', 'd <é>\n']) == 204
    assert api.lines(name, ['e\n']) == 204
    far.clear_faults(held)


@pytest.mark.parametrize('upload', ['follow', 'harness', 'googleapis'])
def test_settling(far, gateway_at, upload):
    gw = gateway_at(far.url, harness={'upload-logs': upload}, stream={'idle': '1s'})
    name = key('late')
    lose_lines(far, gw, name)
    wait_for(lambda: gw.ledger()['settled'] == 3, 30)
    gw.wait_delivered()
    assert outs(far.blob(ACCOUNT, name)) == ['a\n', 'b\n', 'c\n', 'd <é>\n', 'e\n']
    assert far.blob(ACCOUNT, name).endswith(b'\n')
    assert stored(far, name)['via'] == ('put-object' if upload == 'googleapis' else 'blob')
    assert stored(far, name)['encoding'] is None
    assert gw.ledger() == {**gw.ledger(), 'delivered': 2, 'dead': 0}
    assert far.counts()['wipes'] == 0
    assert_clean(far, gw)


def test_settling_much_after_a_crash(far, gateway_at):
    """More lines than are merged in the loop, read back from the spool, onto a blob of a few MB."""
    gw = gateway_at(far.url, stream={'idle': '3s'})
    api, name = Api(gw.log_url), key('much')
    api.post_blob(name, ndjson(30000)[:-1])             # without its last line end
    gw.wait_delivered()
    texts = ['%d %s\n' % (i, 'y' * 1000) for i in range(3000)]
    for at in range(0, 3000, 100):
        assert api.lines(name, texts[at:at + 100]) == 204
    wait_for(lambda: 'does not know the stream' in gw.log())
    gw.kill()
    gw.start()
    wait_for(lambda: gw.ledger()['settled'] == 3000, 40)
    assert far.blob(ACCOUNT, name)[:len(ndjson(30000))] == ndjson(30000)
    assert outs(far.blob(ACCOUNT, name))[30000:] == texts
    assert stored(far, name)['puts'] == 2


def test_settling_without_a_blob(far, gateway_at):
    gw = gateway_at(far.url, stream={'idle': '1s'})
    name = key('none')
    lose_lines(far, gw, name, foreign=False)
    wait_for(lambda: gw.ledger()['settled'] == 3, 30)
    assert outs(far.blob(ACCOUNT, name)) == ['c\n', 'd <é>\n', 'e\n']


def test_settling_once_though_the_answer_is_lost(far, gateway_at):
    gw = gateway_at(far.url, stream={'idle': '1s'})
    name = key('once')
    far.fault('execute_lost', 'blob', count=1)
    lose_lines(far, gw, name)
    wait_for(lambda: gw.ledger()['settled'] == 3, 30)
    assert outs(far.blob(ACCOUNT, name)) == ['a\n', 'b\n', 'c\n', 'd <é>\n', 'e\n']
    assert requests(far, 'blob') == {'none': 1}


def test_settling_once_though_the_life_went_on(far, gateway_at):
    """The upload was stored, its answer lost, the gateway killed; then the stream's client goes on."""
    gw = gateway_at(far.url, stream={'idle': '1s'})
    name = key('resumed')
    far.fault('execute_lost', 'blob', count=1)
    fault = far.fault('status', 'get-blob', code=500, body='x', count=None, skip=1)
    lose_lines(far, gw, name)
    wait_for(lambda: requests(far, 'get-blob').get('500'), 30)
    gw.kill()
    gw.start()
    assert Api(gw.log_url).lines(name, ['f\n']) == 204
    wait_for(lambda: 'does not know the stream' in gw.log(fresh=True))
    far.clear_faults(fault)
    wait_for(lambda: gw.ledger()['settled'] == 4, 30)
    assert outs(far.blob(ACCOUNT, name)) == ['a\n', 'b\n', 'c\n', 'd <é>\n', 'e\n', 'f\n']
    assert gw.metric('stream_events_total', event='settled_before') >= 1


@pytest.mark.parametrize('code, body', [(500, 'x'), (404, '<html>no such page</html>'), (400, '{}')])
def test_settling_waits_for_a_clear_answer(far, gateway_at, code, body):
    """Whatever is not the service's own word on the blob, nothing is written over it."""
    gw = gateway_at(far.url, stream={'idle': '1s'})
    name = key('clear')
    fault = far.fault('status', 'get-blob', code=code, body=body, count=None)
    lose_lines(far, gw, name)
    wait_for(lambda: requests(far, 'get-blob').get(str(code), 0) >= 3, 40)
    assert not requests(far, 'blob') and outs(far.blob(ACCOUNT, name)) == ['a\n', 'b\n']
    far.clear_faults(fault)
    wait_for(lambda: gw.ledger()['settled'] == 3, 40)
    assert outs(far.blob(ACCOUNT, name)) == ['a\n', 'b\n', 'c\n', 'd <é>\n', 'e\n']
    assert gw.ledger()['dead'] == 0


# --- edge and hub --------------------------------------------------------------------------------

@pytest.mark.parametrize('form', ['post', 'link'])
def test_edge_keeps_the_clients_form(far, gateway_at, form):
    hub = gateway_at(far.url, name='hub', harness={'upload-logs': 'follow'})
    edge = gateway_at(hub.url, name='edge', workers=1,
                      harness={'upload-logs': 'harness' if form == 'link' else 'googleapis'})
    api = Api(edge.log_url)
    api.call('POST', '/stream', key('h'))
    assert api.lines(key('h'), ['x\n']) == 204
    edge.wait_delivered()                   # now it knows what it talks to
    content = ndjson(3000)
    api.upload(form, key('h'), content)
    api.upload(form, key('big'), noise(2000000))
    edge.wait_delivered()
    hub.wait_delivered()
    for name in ('h', 'big'):
        assert stored(far, key(name))['via'] == ('blob' if form == 'post' else 'put-object')
    assert far.blob(ACCOUNT, key('h')) == content and far.blob(ACCOUNT, key('big')) == noise(2000000)
    assert shapes(edge) == {'unknown': 0, 'trying': 0, 'trusted': 0, 'refused': 0}
    assert not edge.metric('upstream_requests_total', call='get_blob')
    assert_clean(far, hub)


def test_edge_learns_of_its_hub_in_time(far, gateway_at):
    """The first thing it ever sends is a blob that its own setting would send through a link."""
    hub = gateway_at(far.url, name='hub')
    edge = gateway_at(hub.url, name='edge', workers=1, harness={'upload-logs': 'googleapis'})
    Api(edge.log_url).post_blob(key('first'), ndjson(3000))
    edge.wait_delivered()
    hub.wait_delivered()
    assert stored(far, key('first'))['via'] == 'blob' and stored(far, key('first'))['encoding'] is None
    assert far.blob(ACCOUNT, key('first')) == ndjson(3000)
