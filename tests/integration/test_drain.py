"""SIGTERM: what is waited for is upstream's answers, and nothing else."""
import signal
import time

import pytest
from calls import Api, TOKEN
from gateway import key, wait_for

LIMIT = 20


def drained_in(gw):
    began = time.monotonic()
    assert gw.stop() == 0
    return time.monotonic() - began


@pytest.fixture
def gw(far, gateway_at):
    return gateway_at(far.url, drain={'limit': f'{LIMIT}s'})


def test_lines_for_the_end_of_their_stream_are_not_waited_for(far, gw):
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204 and api.put(key(), 'a\n')[0] == 204
    gw.wait_delivered()
    far.foreign('acct', key(), close=True)
    assert api.put(key(), 'b\n', start=1)[0] == 204
    wait_for(lambda: 'does not know the stream' in gw.log())
    api.close()
    assert gw.ledger()['spooled'] == 1
    assert drained_in(gw) < LIMIT / 4
    gw.start()
    assert gw.ledger()['spooled'] == 1


def test_a_held_credential_is_not_waited_for(far, gw):
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    far.tokens(bad=[TOKEN])
    assert api.put(key(), 'a\n')[0] == 204
    wait_for(lambda: gw.metric('credentials_refused') == 1)
    api.close()
    assert drained_in(gw) < LIMIT / 4
    far.tokens(good=[TOKEN])
    gw.start()
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['a\n']


def test_what_upstream_takes_long_to_answer_is_waited_for(far, gw):
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204 and api.put(key(), 'a\n')[0] == 204
    gw.wait_delivered()
    far.fault('delay', 'close', count=1, seconds=1)
    assert api.delete(key())[0] == 204
    assert api.open(key('other'))[0] == 204
    for i in range(3):
        assert api.put(key('other'), f'{i}\n', start=i)[0] == 204
    api.close()
    assert drained_in(gw) < LIMIT / 2
    assert far.state()['records']['acct/' + key()]['closes'] == 1
    assert far.lines('acct', key('other')) == ['0\n', '1\n', '2\n']


def test_a_streams_own_trouble_is_waited_for(far, gw):
    """500s are one stream's trouble; an upstream that is down altogether is not waited for."""
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    fault = far.fault('status', 'lines', code=500, count=None)
    assert api.put(key(), 'a\n')[0] == 204
    wait_for(lambda: gw.metric('upstream_requests_total', call='lines', code='500') >= 1)
    api.close()
    gw.signal(signal.SIGTERM)
    seen = far.counts()['requests']['lines']['500']
    wait_for(lambda: far.counts()['requests']['lines']['500'] > seen)    # it goes on trying
    far.clear_faults(fault)
    assert gw.process.wait(2 * LIMIT) == 0
    assert far.lines('acct', key()) == ['a\n']
