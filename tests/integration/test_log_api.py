"""HP §7, items 1-16: the log API as clients see it."""
import asyncio
import concurrent.futures
import gzip
import json
import time

import pytest
import zstandard
from calls import Api, body_of, error_of, raw
from gateway import key, wait_for
from standin.clients import GoCIClient, JavaDelegateClient, LegacyClient, OptimizedClient


def texts(n, start=0):
    return [f'line {i}\n' for i in range(start, start + n)]


def test_item_01_open_while_upstream_is_down(far, gw, api):
    far.stop()
    began = time.monotonic()
    assert api.open(key())[0] == 204
    assert time.monotonic() - began < 10


def test_item_01_open_while_upstream_is_silent(far, gw, api):
    far.fault('stall', 'exists', count=None)
    began = time.monotonic()
    assert api.open(key())[0] == 204
    assert time.monotonic() - began < 10


def test_item_02_headers_within_ten_seconds_whatever_upstream_does(far, gw, api):
    far.fault('stall', 'any', count=None)
    for call in (lambda: api.open(key()), lambda: api.put(key(), 'a\n'), lambda: api.link(key()),
                 lambda: api.blob(key(), b'{"out":"a\\n"}\n'), lambda: api.put_link(key(), b'{"out":"a\\n"}\n'),
                 lambda: api.delete(key())):
        began = time.monotonic()
        assert call()[0] in (200, 204)
        assert time.monotonic() - began < 10


def test_item_03_put_and_malformed_json(far, gw, api):
    assert api.put(key(), 'a\n')[0] == 204
    status, text, headers = api.put_raw(key(), b'[{"out": "a"')
    assert status == 400 and error_of(text)
    assert headers['content-type'] == 'application/json'
    far.wait(lambda h: h.counts()['requests'].get('lines'), timeout=10)


@pytest.mark.parametrize('fault', [dict(kind='status', code=503), dict(kind='status', code=429), dict(kind='refuse', seconds=1),
                                   dict(kind='status', code=400), dict(kind='status', code=302)])
def test_item_04_uploads_never_answered_with_an_upstream_error(far, gw, api, fault):
    far.fault(fault.pop('kind'), ['blob', 'link', 'put-object'], count=2, **fault)
    assert api.blob(key('a'), b'{"out":"a\\n"}\n')[0] == 204
    assert api.put_link(key('b'), b'{"out":"b\\n"}\n')[0] == 200


def test_item_05_uploads_held_while_upstream_fails(far, gw, api):
    far.fault('status', ['blob', 'put-object'], count=3, code=503)
    data = b'{"out":"whole\\n"}\n' * 100
    assert api.blob(key('a'), data)[0] == 204
    assert api.put_link(key('b'), data)[0] == 200
    gw.wait_delivered(60)
    assert far.blob('acct', key('a')) == data
    assert far.blob('acct', key('b')) == data


def test_item_06_empty_upload_after_a_failed_one_stores_nothing(far, gw, api):
    """The older client's second try has an empty body (HP §2.6)."""
    assert api.open(key())[0] == 204
    assert api.put(key(), *texts(3))[0] == 204
    request = (f'POST {api.target("/blob", key())} HTTP/1.1\r\nHost: x\r\nX-Harness-Token: {api.token}\r\n'
               f'Content-Length: 1000\r\n\r\n{{"out":"cut').encode()
    raw(gw.port, request, timeout=1, shut=True)
    assert api.blob(key(), b'')[0] == 204
    assert api.delete(key())[0] == 204
    far.wait(lambda h: h.blob('acct', key()), timeout=15)
    stored = [json.loads(x)['out'] for x in far.blob('acct', key()).splitlines()]
    assert stored == texts(3), 'the snapshot has what upstream had'
    assert gw.ledger('blobs')['broken'] == 1


def test_item_07_upload_link_is_json(far, gw, api):
    status, text, headers = api.link(key())
    assert status == 200
    value = json.loads(text)
    assert value['link'].startswith(gw.url) and value['expires'] == 3600000000000
    assert far.counts()['started'].get('link', 0) == 0, 'no upstream call'


def test_item_08_spellings_of_a_key_are_one_stream(far, gw, api):
    name = 'accountId:acct/a b;c/level0:x'
    spellings = ['accountId:acct/a+b;c/level0:x', 'accountId%3Aacct%2Fa%20b%3Bc%2Flevel0%3Ax']
    assert api.open(spellings[0])[0] == 204
    for i, spelled in enumerate(spellings):
        status, text, _ = api.put(spelled, f'{i}\n', start=i)
        assert status == 204, text
    gw.wait_delivered()
    assert gw.metric('streams') <= 1
    assert [e['key'] for e in far.log('open')] and len(far.log('open')) == 1
    assert ''.join(far.lines('acct', name)) in ('0\n1\n',)


def test_item_08_original_spelling_goes_upstream(far, gw, api):
    assert api.open(key(), raw=False)[0] == 204
    far.wait(lambda h: h.log('open'), timeout=10)
    assert '%2ForgId%3Adefault' in far.log('open')[0]['target']


@pytest.mark.parametrize('how', ['header', 'query', 'api-key'])
def test_item_09_credentials_go_on_unchanged(far, gw, how):
    secret = 'a.b-c_d%3D' if how == 'query' else 'a.b-c_d='
    headers = {'header': {'X-Harness-Token': secret}, 'query': {}, 'api-key': {'x-api-key': secret}}[how]
    api = Api(gw.log_url)
    more = f'&X-Harness-Token={secret}' if how == 'query' else ''
    assert api.request('PUT', api.target('/stream', key(), more), body_of('a\n'), headers)[0] == 204
    sent = far.wait(lambda h: h.log('lines'), timeout=10)[0]
    names = {k.lower(): v for k, v in sent['headers']}
    given = [names.get('x-harness-token'), names.get('x-api-key'), secret if f'X-Harness-Token={secret}' in sent['target'] else None]
    assert [x for x in given if x] == [secret]
    api.close()


def test_item_10_without_content_type_on_both_protocols(far, gw):
    async def both():
        for kind in (LegacyClient, OptimizedClient):
            client, name = kind(gw.log_url, 'token-1', speed=10, hurry=1), key(kind.__name__)
            await client.open('acct', name)
            await client.write('acct', name, body_of('a\n'))
            await client.close('acct', name)
    asyncio.run(both())


def test_item_10_http2_in_clear_and_over_tls(far, gateway_at, ca):
    issued = ca.issue('127.0.0.1')
    gw = gateway_at(far.url, cert=issued[0], key=issued[1])

    async def step():
        client = LegacyClient(gw.log_url, 'token-1', speed=10, hurry=1, ca=ca.ca)
        await client.open('acct', key())
        await client.write('acct', key(), body_of('h2\n'))
        return client.records[-1].version if hasattr(client, 'records') else None
    asyncio.run(step())
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['h2\n']
    assert gw.metric('http_requests_total', protocol='h2') >= 2


def test_item_11_no_redirects(far, gw, api):
    far.fault('status', 'any', count=None, code=302, headers={'Location': 'http://127.0.0.1:1/'})
    for answer in (api.open(key()), api.put(key(), 'a\n'), api.link(key()), api.delete(key())):
        assert answer[0] in (200, 204)


def test_item_12_no_429_under_pressure(far, gw):
    far.fault('status', 'any', count=None, code=429, retry_after=1)

    def put(i):
        api = Api(gw.log_url)
        out = [api.put(key(f's{i}'), f'{n}\n', start=n)[0] for n in range(20)]
        api.close()
        return out
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {s for out in pool.map(put, range(8)) for s in out} == {204}


def test_item_13_second_delete_is_204(far, gw, api):
    api.open(key())
    assert api.delete(key())[0] == 204
    far.wait(lambda h: h.counts()['requests'].get('close'), timeout=10)
    assert api.delete(key())[0] == 204
    assert far.counts()['started']['close'] == 1


def test_item_14_delete_keeps_its_parameters(far, gw, api):
    more = '&snapshot=true&prefix=true&keys=a%2Cb&other=1'
    assert api.delete(key(), more)[0] == 204
    far.wait(lambda h: h.log('close'), timeout=10)
    assert far.log('close')[0]['target'].endswith(more)


def test_item_15_nothing_after_the_delete(far, gw, api):
    api.open(key())
    api.put(key(), 'a\n')
    api.delete(key())
    assert api.open(key())[0] == 204, 'an open that the delete overtook'
    far.wait(lambda h: h.counts()['requests'].get('close'), timeout=10)
    assert api.open(key('other'))[0] == 204 and api.put(key('other'), 'b\n')[0] == 204
    gw.wait_delivered()
    calls = [e['call'] for e in far.log(key='level6:step') if e['call'] != 'exists']
    assert calls == ['open', 'lines', 'close']


def test_item_16_close_only_after_its_lines(far, gw, api):
    far.fault('delay', 'lines', count=None, seconds=0.3)
    api.open(key())
    for i in range(10):
        assert api.put(key(), f'{i}\n', start=i)[0] == 204
    assert api.delete(key(), '&snapshot=true')[0] == 204
    blob = far.wait(lambda h: h.blob('acct', key()), timeout=20)
    assert [json.loads(x)['out'] for x in blob.splitlines()] == [f'{i}\n' for i in range(10)]


# --- bodies in other codings --------------------------------------------------------------------

@pytest.mark.parametrize('coding', ['zstd', 'gzip'])
def test_compressed_bodies(far, gw, api, coding):
    data = body_of(*texts(100))
    api.open(key())
    packed = zstandard.compress(data) if coding == 'zstd' else gzip.compress(data)
    status, _, headers = api.put_raw(key(), packed, {'Content-Encoding': coding})
    assert status == 204
    assert {x.strip() for x in headers['accept-encoding'].split(',')} == {'zstd', 'gzip'}
    gw.wait_delivered()
    assert far.lines('acct', key()) == texts(100)


def test_unknown_coding_is_415(gw, api):
    status, text, headers = api.put_raw(key(), b'[]', {'Content-Encoding': 'br'})
    assert status == 415 and error_of(text) and 'zstd' in headers['accept-encoding']


# --- whole steps --------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', [LegacyClient, OptimizedClient, GoCIClient])
@pytest.mark.parametrize('indirect', [True, False])
def test_whole_step(far, gw, kind, indirect):
    async def run():
        client = kind(gw.log_url, 'token-1', speed=10, hurry=1, indirect=indirect)
        step = client.step('acct', key())
        await step.open()
        failed = await step.run(texts(200), rate=2000)
        await step.settle()
        return failed, step
    failed, step = asyncio.run(run())
    assert not failed and step.errors == []
    gw.wait_delivered()
    wait_for(lambda: far.blob('acct', key()) == step.blob, what='the blob')
    ledger = gw.ledger()
    assert ledger['accepted'] == 200 == ledger['delivered'] + ledger['superseded']


def test_whole_delegate_stream(far, gw):
    async def run():
        client = JavaDelegateClient(gw.log_url, 'token-1', speed=10, hurry=1)
        step = client.step('acct', key())
        await step.open()
        await step.run(texts(100), rate=1000)
        await step.settle()
    asyncio.run(run())
    blob = far.wait(lambda h: h.blob('acct', key()), timeout=15)
    assert [json.loads(x)['out'] for x in blob.splitlines()] == texts(100)
