"""Bad input over HTTP/2: floods, bombs and broken frames. The connection or the stream ends with a code; nobody else notices."""
import json
import time

import pytest
from calls import Api, body_of, error_of
from frames import (CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
                    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, H2, NO_ERROR, PADDED, PING, PREFACE, PRIORITY,
                    PROTOCOL_ERROR, PUSH, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, settings)
from gateway import key, wait_for
from shared import far, gw, pair_at, watch  # noqa: F401


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    with pair_at(tmp_path_factory.mktemp('h2') / 'gw') as both:
        yield both


# --- floods ---------------------------------------------------------------------------------------

def reset_flood(c):
    for stream in range(1, 20001, 2):
        if not c.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, c.block('GET', '/api/x')) +
                      frame(RST_STREAM, 0, stream, b'\0\0\0\x08')):
            return


def reset_flood_of_uploads(c):
    """Resets of calls that had begun work."""
    for stream in range(1, 20001, 2):
        block = c.block('PUT', f'/log-service/stream?accountID=a&key=k{stream}', ('x-harness-token', 't'))
        if not c.send(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, b'[') +
                      frame(RST_STREAM, 0, stream, b'\0\0\0\x08')):
            return


def made_you_reset(c):
    """Resets that the server is made to send (CVE-2025-8671)."""
    for stream in range(1, 20001, 2):
        if not c.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, c.block('GET', '/api/x')) +
                      frame(WINDOW_UPDATE, 0, stream, b'\0\0\0\0')):
            return


def repeat(one, times=50000, at_once=100):
    def flood(c):
        for _ in range(times // at_once):
            if not c.send(one * at_once):
                return
    return flood


def empty_data(c):
    c.send(frame(HEADERS, END_HEADERS, 1, c.block('PUT', '/log-service/stream?accountID=a&key=k', ('x-harness-token', 't'))))
    repeat(frame(DATA, 0, 1))(c)


def continuation(c):
    c.send(frame(HEADERS, END_STREAM, 1, c.block('GET', '/')))
    repeat(frame(CONTINUATION, 0, 1, b'\x00\x01a\x01b' * 100), 20000, 10)(c)


def empty_continuation(c):
    c.send(frame(HEADERS, END_STREAM, 1, c.block('GET', '/')))
    repeat(frame(CONTINUATION, 0, 1))(c)


FLOODS = {
    'rapid-reset': reset_flood,
    'rapid-reset-of-uploads': reset_flood_of_uploads,
    'made-you-reset': made_you_reset,
    'ping': repeat(frame(PING, 0, 0, b'01234567')),
    'settings': repeat(settings(window=65535)),
    'empty-settings': repeat(settings()),
    'priority': repeat(frame(PRIORITY, 0, 1, b'\0\0\0\0\x10')),
    'window-update': repeat(frame(WINDOW_UPDATE, 0, 0, b'\0\0\0\x01')),
    'unknown-frames': repeat(frame(0xbb, 0, 0, b'x')),
    'empty-data': empty_data,
    'continuation': continuation,
    'empty-continuation': empty_continuation,
}


@pytest.mark.parametrize('name', FLOODS)
def test_flood(gw, watch, name):
    with H2(gw.port) as c:
        FLOODS[name](c)
        code = c.ends(20)
    # The code may be lost: what we still sent meanwhile makes the kernel answer with a reset.
    assert code in (None, ENHANCE_YOUR_CALM, PROTOCOL_ERROR), code
    watch.disturbed_nothing(glitch='h2_flood')


def test_a_flood_is_answered_enhance_your_calm(gw, watch):
    """Stopped at the limit, so that the answer can be read."""
    with H2(gw.port) as c:
        c.send(frame(PING, 0, 0, b'01234567') * 1100)
        assert c.ends() == ENHANCE_YOUR_CALM
    watch.disturbed_nothing(glitch='h2_flood')


def test_pings_that_nobody_reads_pile_up_nowhere(gw, watch):
    with H2(gw.port) as c:
        repeat(frame(PING, 0, 0, b'01234567'), 900)(c)
        c.read(lambda: c.pings == 900)
        assert c.pings == 900 and c.goaway is None, 'below the limit all are answered'
    watch.disturbed_nothing()


def test_padding_without_end_is_no_progress_and_no_burden(gw, watch):
    with H2(gw.port) as c:
        block = c.block('PUT', '/log-service/stream?accountID=a&key=k', ('x-harness-token', 't'))
        c.send(frame(HEADERS, END_HEADERS, 1, block))
        repeat(frame(DATA, PADDED, 1, b'\xff' + b'\0' * 255), 40000)(c)
        c.read(timeout=0.5)
        assert 1 not in c.answers
    watch.disturbed_nothing(mb=16)


def test_rapid_reset_costs_no_upstream_calls(far, gw, watch):
    before = far.counts()['requests'].get('api', {})
    with H2(gw.port) as c:
        reset_flood(c)
        c.read(timeout=5)
    watch.disturbed_nothing(glitch='h2_flood')
    after = far.counts()['requests'].get('api', {})
    assert sum(after.values()) - sum(before.values()) < 500


# --- header bombs ---------------------------------------------------------------------------------

def test_an_indexed_header_bomb_is_431_or_the_end(gw, watch):
    """One large field in the table of the connection, then thousands of one-byte references to it."""
    with H2(gw.port) as c:
        first = c.block('GET', '/healthz') + b'\x40\x01a' + b'\x7f\xa1\x1e' + b'x' * 4000
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, first))
        c.read(lambda: 1 in c.answers or c.closed or 1 in c.resets)
        for stream in range(3, 203, 2):
            c.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, c.block('GET', '/healthz') + b'\xbe' * 10000))
        c.read(lambda: c.closed or len(c.answers) + len(c.resets) > 95, 10)
        codes = {a['status'] for a in c.answers.values()} - {200, 404}
        assert codes <= {431} and (431 in codes or c.closed or c.resets), (codes, c.goaway)
    watch.disturbed_nothing()


@pytest.mark.parametrize('fields', [[(f'x-{i}', 'a') for i in range(200)], [(f'x-{i}', 'a' * 3000) for i in range(30)]],
                         ids=['many', 'large'])
def test_too_many_or_too_large_fields_are_431(gw, watch, fields):
    with H2(gw.port) as c:
        block = c.block('GET', '/healthz', *fields)
        c.send(frame(HEADERS, END_STREAM, 1, block[:16000]))
        rest = [block[i:i + 16000] for i in range(16000, len(block), 16000)] or [b'']
        for i, piece in enumerate(rest):
            c.send(frame(CONTINUATION, END_HEADERS if i == len(rest) - 1 else 0, 1, piece))
        c.read(lambda: 1 in c.answers or c.closed)
        if c.goaway is None:
            assert c.answers[1]['status'] == 431
            c.put(3, Api(gw.log_url), key('after-431'), body_of('a\n'))
            assert c.answer(3)['status'] == 204, 'the connection goes on'
        else:
            assert c.goaway == ENHANCE_YOUR_CALM
    watch.disturbed_nothing(glitch='bad_request' if c.goaway is None else 'h2_flood')


def test_a_table_beyond_what_we_allow_ends_the_connection(gw, watch):
    with H2(gw.port) as c:
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, b'\x3f\xe1\xff\x03' + c.block('GET', '/')))
        assert c.ends() == COMPRESSION_ERROR
    watch.disturbed_nothing(glitch='h2_protocol')


# --- windows --------------------------------------------------------------------------------------

def test_window_overflow(gw, watch):
    with H2(gw.port) as c:
        c.send(frame(WINDOW_UPDATE, 0, 0, b'\x7f\xff\xff\xff') * 2)
        assert c.ends() == FLOW_CONTROL_ERROR
    watch.disturbed_nothing(glitch='h2_protocol')


def test_initial_window_beyond_31_bits(gw, watch):
    with H2(gw.port, start=False) as c:
        c.send(PREFACE + settings(window=0x80000000))
        assert c.ends() == FLOW_CONTROL_ERROR
    watch.disturbed_nothing(glitch='h2_protocol')


def test_zero_increment(gw, watch):
    with H2(gw.port) as c:
        c.send(frame(WINDOW_UPDATE, 0, 0, b'\0\0\0\0'))
        assert c.ends() == PROTOCOL_ERROR
    watch.disturbed_nothing(glitch='h2_protocol')


def test_a_sender_that_ignores_the_window(far, gw, watch):
    """More than was allowed, on a stream whose reader is held up: upstream takes next to nothing."""
    far.fault('slow_body', 'api', rate=1000)
    try:
        with H2(gw.port) as c:
            c.send(frame(HEADERS, END_HEADERS, 1, c.block('POST', '/api/x')))
            for _ in range(4000):
                if not c.send(frame(DATA, 0, 1, b'x' * 16384)):
                    break
            c.read(lambda: c.resets, 20)
            assert c.goaway == FLOW_CONTROL_ERROR or c.resets.get(1) == FLOW_CONTROL_ERROR or c.closed
    finally:
        far.clear_faults()
    watch.disturbed_nothing(mb=48)


def test_answers_without_a_window_are_held_in_bounded_memory(gw, watch):
    """A hundred downloads that the client never opens a window for."""
    with H2(gw.port, window=0) as c:
        for stream in range(1, 200, 2):
            c.request(stream, 'GET', '/api/echo?respond=5000000')
        c.read(lambda: len(c.answers) == 100, 20)
        assert {a['status'] for a in c.answers.values()} == {200}
        c.read(timeout=1)
    watch.disturbed_nothing(mb=96)


def test_more_streams_than_allowed_are_refused(far, gw, watch):
    far.fault('delay', 'api', count=None, seconds=1)
    try:
        with H2(gw.port) as c:
            c.send(frame(WINDOW_UPDATE, 0, 0, b'\1\0\0\0'))
            for stream in range(1, 800, 2):
                c.request(stream, 'GET', '/api/x')
            c.read(lambda: c.closed or len(c.answers) + len(c.resets) >= 400, 20)
            assert c.goaway is not None or len(c.resets) > 100 and set(c.resets.values()) == {REFUSED_STREAM}
    finally:
        far.clear_faults()
    watch.disturbed_nothing(spare=80)  # idle connections to upstream


# --- broken frames and requests -------------------------------------------------------------------

CONNECTION_ERRORS = {
    'data-on-stream-0': (frame(DATA, 0, 0, b'x'), PROTOCOL_ERROR),
    'data-on-idle-stream': (frame(DATA, 0, 5, b'x'), PROTOCOL_ERROR),
    'headers-on-stream-0': (frame(HEADERS, END_HEADERS, 0, b'\x82'), PROTOCOL_ERROR),
    'headers-on-even-stream': (frame(HEADERS, END_HEADERS | END_STREAM, 2, b'\x82'), PROTOCOL_ERROR),
    'push-from-client': (frame(PUSH, END_HEADERS, 1, b'\0\0\0\x02\x82'), PROTOCOL_ERROR),
    'continuation-alone': (frame(CONTINUATION, END_HEADERS, 1, b'\x82'), PROTOCOL_ERROR),
    'headers-interrupted': (frame(HEADERS, 0, 1, b'\x82') + frame(PING, 0, 0, b'01234567'), PROTOCOL_ERROR),
    'ping-of-seven-bytes': (frame(PING, 0, 0, b'0123456'), FRAME_SIZE_ERROR),
    'ping-on-a-stream': (frame(PING, 0, 1, b'01234567'), PROTOCOL_ERROR),
    'settings-on-a-stream': (frame(SETTINGS, 0, 1, b''), PROTOCOL_ERROR),
    'settings-of-five-bytes': (frame(SETTINGS, 0, 0, b'\0\1\0\0\0'), FRAME_SIZE_ERROR),
    'settings-ack-with-text': (frame(SETTINGS, 1, 0, b'\0\1\0\0\0\0'), FRAME_SIZE_ERROR),
    'frame-size-out-of-range': (settings(frame=100), PROTOCOL_ERROR),
    'push-switch-of-two': (settings(push=2), PROTOCOL_ERROR),
    'reset-of-idle-stream': (frame(RST_STREAM, 0, 7, b'\0\0\0\x08'), PROTOCOL_ERROR),
    'frame-over-the-size': (frame(HEADERS, END_HEADERS, 1, b'x' * 20000), FRAME_SIZE_ERROR),
    'garbage-in-hpack': (frame(HEADERS, END_HEADERS | END_STREAM, 1, b'\xff\xff\xff\xff\xff\xff\xff'), COMPRESSION_ERROR),
    'index-zero': (frame(HEADERS, END_HEADERS | END_STREAM, 1, b'\x80'), COMPRESSION_ERROR),
    'padding-longer-than-frame': (frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b'\xff\x82'), PROTOCOL_ERROR),
}


@pytest.mark.parametrize('name', CONNECTION_ERRORS)
def test_connection_error(gw, watch, name):
    data, code = CONNECTION_ERRORS[name]
    with H2(gw.port) as c:
        c.send(data)
        assert c.ends() == code
    watch.disturbed_nothing(glitch='h2_protocol')


def test_no_settings_behind_the_preface(gw, watch):
    with H2(gw.port, start=False) as c:
        c.send(PREFACE + frame(PING, 0, 0, b'01234567'))
        assert c.ends() == PROTOCOL_ERROR
    watch.disturbed_nothing(glitch='h2_protocol')


STREAM_ERRORS = {
    'upper-case-name': [('X-Upper', 'a')],
    'connection-field': [('connection', 'close')],
    'transfer-encoding': [('transfer-encoding', 'chunked')],
    'te-other-than-trailers': [('te', 'gzip')],
    'upgrade-field': [('upgrade', 'websocket')],
    'newline-in-value': [('x-a', 'b\r\nx-c: d')],
    'nul-in-value': [('x-a', 'b\0c')],
    'space-in-name': [('x a', 'b')],
    'colon-in-name': [('x:a', 'b')],
    'empty-name': [('', 'b')],
    'pseudo-field-behind': [('x-a', 'b'), (':path', '/')],
    'path-twice': [(':path', '/other')],
    'unknown-pseudo-field': [(':unknown', 'b')],
    'status-in-a-request': [(':status', '200')],
    'host-differs': [('host', 'other')],
    'host-twice': [('host', 'x'), ('host', 'x')],
    'two-lengths': [('content-length', '2'), ('content-length', '3')],
    'length-of-text': [('content-length', 'two')],
    'negative-length': [('content-length', '-1')],
    'length-but-no-body': [('content-length', '10')],
}


@pytest.mark.parametrize('name', STREAM_ERRORS)
def test_stream_error(far, gw, watch, name):
    before = len(far.log())
    with H2(gw.port) as c:
        fields = [(':method', 'PUT'), (':scheme', 'http'), (':path', '/api/x'), (':authority', 'x'), *STREAM_ERRORS[name]]
        raw = c.encoder.encode(fields, huffman=False)
        if name == 'upper-case-name':
            raw = raw.replace(b'x-upper', b'X-Upper')
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, raw))
        c.read(lambda: 1 in c.resets or c.closed or c.answers.get(1, {}).get('ended'))
        assert c.resets.get(1) == PROTOCOL_ERROR or c.goaway == PROTOCOL_ERROR or c.answers[1]['status'] == 400, c.answers
        if not c.closed and c.goaway is None:
            c.put(3, Api(gw.log_url), key('after'), body_of('a\n'))
            assert c.answer(3)['status'] == 204, 'the connection goes on'
    watch.disturbed_nothing(glitch=None if c.goaway is not None or c.answers else 'bad_request')
    assert [e for e in far.log()[before:] if e['target'].endswith('/api/x')] == []


MISSING = {
    'no-method': [(':scheme', 'http'), (':path', '/api/x'), (':authority', 'x')],
    'no-scheme': [(':method', 'GET'), (':path', '/api/x'), (':authority', 'x')],
    'no-path': [(':method', 'GET'), (':scheme', 'http'), (':authority', 'x')],
    'empty-path': [(':method', 'GET'), (':scheme', 'http'), (':authority', 'x'), (':path', '')],
    'path-without-slash': [(':method', 'GET'), (':scheme', 'http'), (':authority', 'x'), (':path', 'api/x')],
    'path-with-space': [(':method', 'GET'), (':scheme', 'http'), (':authority', 'x'), (':path', '/api/x y')],
    'path-with-newline': [(':method', 'GET'), (':scheme', 'http'), (':authority', 'x'), (':path', '/api/x\r\nx: y')],
    'method-with-space': [(':method', 'GET /x'), (':scheme', 'http'), (':authority', 'x'), (':path', '/api/x')],
    'authority-with-slash': [(':method', 'GET'), (':scheme', 'http'), (':authority', 'a/b'), (':path', '/api/x')],
    'connect': [(':method', 'CONNECT'), (':authority', 'example.com:443')],
}


@pytest.mark.parametrize('name', MISSING)
def test_malformed_request(far, gw, watch, name):
    before = len(far.log())
    with H2(gw.port) as c:
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, c.encoder.encode(MISSING[name], huffman=False)))
        c.read(lambda: 1 in c.resets or c.closed or c.answers.get(1, {}).get('ended'))
        assert c.resets.get(1) == PROTOCOL_ERROR or c.answers.get(1, {}).get('status') == 400, (c.resets, c.goaway, c.answers)
    watch.disturbed_nothing(glitch=None if c.answers else 'bad_request')
    assert [e for e in far.log()[before:] if '/api/x' in e['target']] == []


def test_body_longer_or_shorter_than_its_length(far, gw, api, watch):
    for length, body in (('3', b'[]'), ('1', b'[]')):
        with H2(gw.port) as c:
            c.request(1, 'PUT', api.target('/stream', key('length')), ('x-harness-token', 't'), ('content-length', length),
                      body=body)
            c.read(lambda: 1 in c.resets or c.closed)
            assert c.resets.get(1) == PROTOCOL_ERROR or c.goaway == PROTOCOL_ERROR
    watch.disturbed_nothing(glitch='bad_request')


def test_errors_of_the_log_api_are_the_same_as_over_http1(gw, api, watch):
    with H2(gw.port) as c:
        cases = [('/stream?accountID=acct', b'[]', 400), (f'/stream?accountID=acct&key={key()}', b'[{', 400),
                 (f'/stream?accountID=..&key={key()}', b'[]', 400), ('/tickets/forged', b'x', 403)]
        for i, (path, body, status) in enumerate(cases):
            c.request(2 * i + 1, 'PUT', api.base + path, ('x-harness-token', 't'), body=body)
            a = c.answer(2 * i + 1)
            assert a['status'] == status and error_of(a['body'].decode())
        c.request(99, 'PUT', api.target('/stream', key()), ('x-harness-token', 't'), ('content-encoding', 'br'), body=b'[]')
        a = c.answer(99)
        assert a['status'] == 415 and a['headers']['accept-encoding'] == 'zstd, gzip'
    watch.disturbed_nothing(counted=True)


def test_a_body_over_the_limit_is_413_and_stopped(far, gw, api, watch):
    with H2(gw.port) as c:
        block = c.block('PUT', api.target('/stream', key()), ('x-harness-token', 't'), ('content-length', str(1 << 30)))
        c.send(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1, b' ' * 16384))
        assert c.answer(1)['status'] == 413
        c.put(3, api, key('go-on'), body_of('a\n'))
        assert c.answer(3)['status'] == 204
    watch.disturbed_nothing(counted=True)


def test_goaway_from_the_client_lets_its_calls_end(far, gw, api, watch):
    far.fault('delay', 'api', seconds=0.5)
    with H2(gw.port) as c:
        c.request(1, 'GET', '/api/x')
        c.send(frame(GOAWAY, 0, 0, b'\0\0\0\0\0\0\0\0'))
        assert c.answer(1)['status'] == 200
    watch.disturbed_nothing()


def test_cancelled_calls_leave_nothing_behind(far, gw, api, watch):
    """A client that gives up in the middle, again and again, below the limits."""
    far.fault('stall', 'api', count=None)
    try:
        for _ in range(5):
            with H2(gw.port) as c:
                for stream in range(1, 40, 2):
                    c.request(stream, 'GET', '/api/x')
                for stream in range(1, 40, 2):
                    c.send(frame(RST_STREAM, 0, stream, b'\0\0\0' + bytes([CANCEL])))
                c.put(41, api, key('cancel'), body_of('a\n'))
                assert c.answer(41)['status'] == 204 and c.goaway in (None, NO_ERROR)
    finally:
        far.clear_faults()
    watch.disturbed_nothing()
