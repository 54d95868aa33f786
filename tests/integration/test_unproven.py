"""Credentials that upstream has never taken share a quarter of the spool, whatever they send."""
import pytest
from calls import Api, error_of
from gateway import key
from test_blobs import noise

MIB = 1024 * 1024


def send(api, form, name, data):
    return api.blob(name, data) if form == 'post' else api.put_link(name, data)


@pytest.fixture
def gw(far, gateway_at):
    """One whose upstream knows `proven` and is then away. A quarter of its spool is 8 MiB."""
    gw = gateway_at(far.url, spool={'limit': '32MiB'})
    assert Api(gw.log_url, token='proven').open(key('lines'))[0] == 204
    gw.wait_delivered()
    far.stop()
    return gw


@pytest.mark.parametrize('form', ['post', 'link'])
def test_uploads_of_invented_credentials_fill_a_quarter(far, gw, form):
    api = Api(gw.log_url, token='invented')
    codes = []
    for i in range(12):
        try:
            codes.append(send(api, form, key(f'{form}{i}'), noise(MIB, i))[0])
        except OSError:                                 # the refusal came before all of it had gone
            codes.append(503)
    taken = [c for c in codes if c < 300]
    assert 6 <= len(taken) <= 8 and codes == taken + [503] * (12 - len(taken)), codes
    status, full, _ = send(api, form, key('small'), b'x')
    assert status == 503 and error_of(full) == "the gateway's spool is full"
    status, text, _ = api.put(key('lines'), 'x\n')
    assert status == 503 and error_of(text) == error_of(full)
    status, text, _ = Api(gw.log_url, token='another').put(key('lines'), 'x\n')
    assert status == 503                                # they share it
    known = Api(gw.log_url, token='proven')
    assert send(known, form, key('known'), noise(MIB))[0] < 300
    assert known.put(key('lines'), 'x\n')[0] == 204
    far.start()
    gw.wait_delivered(30)
    assert len(far.blob('acct', key(f'{form}0'))) == MIB
    fresh = Api(gw.log_url, token='fresh')
    far.stop()
    assert send(fresh, form, key('again'), noise(MIB))[0] < 300      # what has gone does not count


def test_one_upload_alone_is_stopped_in_its_middle(far, gw):
    api = Api(gw.log_url, token='invented')
    try:
        status, text, _ = api.blob(key('large'), noise(12 * MIB))
    except OSError:                                     # the answer came before all of it had gone
        api.close()
    else:
        assert status == 503 and error_of(text) == "the gateway's spool is full"
    api = Api(gw.log_url, token='invented')
    assert api.blob(key('small'), noise(6 * MIB))[0] < 300           # what was given up does not count
    assert gw.metric('client_requests_total', call='blob', code='503') == 1
    assert gw.ledger('blobs')['spooled'] == 1
