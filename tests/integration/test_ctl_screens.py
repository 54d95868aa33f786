"""What tailracectl shows, of answers that a stand-in gives: states that are rare, texts that are hostile, terminals of any
width."""
import json
import os
import re
import signal
import unicodedata

import pytest

from gateway import wait_for
from standin_gateway import CTL, KEY, StandinGateway, Streamed, problem, status, stream, streams
from terminal import Terminal

BIDI = '\u202e\u2066\u200f\u061c'
HOSTILE = 'evil\x1b[2J\x9b31m\x07\x7f\r\u200b\u2028' + BIDI + '\ufeff\U000e0041end'


@pytest.fixture
def far(tmp_path):
    with StandinGateway(tmp_path) as g:
        yield g


def width(line):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in line)


def fits(text, columns):
    assert max(map(width, text.splitlines())) <= columns, text
    return text


def rows(text):
    """A table's cells, by their places under its heads."""
    head, *lines = text.splitlines()
    starts = [m.start() for m in re.finditer(r'\S+( \S+)*', head)]
    return head, starts, lines


# --- status ---------------------------------------------------------------------------------------

def test_a_status_that_is_well_fits_a_screen(far):
    out = fits(far.ctl('status', columns=80)[0], 80)
    assert len(out.splitlines()) <= 24
    assert out.startswith('ALL IS WELL') and 'up 1d03h' in out and 'process 812' in out
    assert 'serving, ready; policy in force; configuration 4: /etc/tailrace/tailrace.yaml' in out
    assert re.search(r'accepted +12,345,678 +123', out) and re.search(r'spooled +45,678 +3', out)
    assert '12 MiB of 10 GiB' in out and '3h20m' in out and '1m22s' in out and '120 GiB' in out
    assert '1234 in' in out and 'half in 2.0ms, 99% in 9.4ms' in out
    assert re.search(r'app\.harness\.io:443.* healthy', out) and re.search(r'storage.* down +0 +1 +4\.5s', out)
    assert 'upstream 0.0.0.0:8443 (TLS)' in out and 'the first to expire is listen.upstream, in 31d00h' in out


def test_problems_stand_first_with_their_section_of_the_runbook(far):
    text = 'storage.googleapis.com has not answered for 5 minutes. ' + 'Nothing is lost while the spool has room. ' * 4
    far.answers['status'] = status(problems=[problem('critical', text=text), problem('warning', 'policy-reports'),
                                             problem('warning', 'certificate-expires')])
    out = fits(far.ctl('status', columns=80)[0], 80)
    assert out.startswith('1 CRITICAL PROBLEM, 2 WARNINGS')
    assert out.index('critical  upstream-down') < out.index('LEDGER')
    assert 'see docs/operations.md#upstream-down' in out
    assert re.sub(r'\s+', ' ', text).strip() in re.sub(r'\s+', ' ', out)


@pytest.mark.parametrize('severities, code', [([], 0), (['warning', 'info'], 0), (['warning', 'critical'], 1)])
def test_check_is_for_scripts(far, severities, code):
    far.answers['status'] = status(problems=[problem(s) for s in severities])
    far.ctl('status')
    far.ctl('status', '--check', code=code)
    assert json.loads(far.ctl('status', '--check', '--json', code=code)[0])['problems'] == \
        [problem(s) for s in severities]


@pytest.mark.parametrize('over, words', [
    ({'state': 'draining', 'ready': False, 'not_ready': ['draining']}, ['DRAINING', 'not ready: draining']),
    ({'state': 'handing over'}, ['HANDING OVER']),
    ({'ready': False, 'not_ready': ['starting', 'no upstream']}, ['NOT READY', 'not ready: starting, no upstream']),
    ({'ledger': {**status()['ledger'], 'balanced': False}}, ['THE LEDGER DOES NOT BALANCE']),
    ({'config': {**status()['config'], 'last_error': 'line 3: no such key', 'policy_mode': 'report'}},
     ['the last reload failed: line 3: no such key', 'policy only reports']),
    ({'spool': {**status()['spool'], 'failing': True, 'sealed': True, 'full_in_seconds': None, 'set_aside': 1,
                'set_aside_bytes': 4096}}, ['CANNOT BE WRITTEN', 'sealed', 'not filling', '1 damaged, 4.0 KiB']),
    ({'spool': {**status()['spool'], 'oldest_seconds': None}}, ['nothing waits']),
    ({'rates': {'lines_in': None, 'lines_out': None, 'ack_p50_seconds': None, 'ack_p99_seconds': None}}, ['known 10 s after']),
    ({'listeners': [{'name': f'name{i}', 'mode': 'proxy', 'address': f'10.0.0.{i}:8080', 'tls': False} for i in range(9)]},
     ['name0 10.0.0.0:8080,', 'name8', '10.0.0.8:8080']),
    ({'certificates': [{'name': 'listen.a', 'subject': '', 'not_after': '', 'expires_in_seconds': -5}]},
     ['listen.a has expired']),
])
def test_what_is_not_as_usual_is_said(far, over, words):
    far.answers['status'] = status(**over)
    out = far.ctl('status', columns=80)[0]
    assert all(word in out for word in words), out


def test_a_status_of_which_everything_is_missing_does_no_harm(far):
    far.answers['status'] = {}
    assert 'NOT READY' in far.ctl('status', columns=80)[0]
    far.answers['status'] = []
    far.ctl('status')
    far.answers['status'] = b'no JSON'
    assert 'cannot be read' in far.ctl('status', code=1)[1]


# --- tables ---------------------------------------------------------------------------------------

def test_tables_fit_the_terminal_and_are_whole_elsewhere(far):
    far.answers['streams'] = streams(stream('a'), stream('b', last_error={
        'time': '2026-01-02T03:04:01.000Z', 'status': 503, 'text': 'it was in trouble itself'}))
    for columns in (40, 60, 80, 100, 200):
        out = fits(far.ctl('streams', columns=columns)[0], columns)
        assert 'level6:a' in out or columns < 80
    assert '…' in far.ctl('streams', columns=80)[0]
    assert '...' in far.ctl('streams', columns=80, env={'LC_ALL': 'C'})[0]
    for whole in (far.ctl('streams'), far.ctl('streams', '--wide', columns=80)):
        assert KEY + 'a' in whole[0] and 'it was in trouble itself' in whole[0] and '1.2M' in whole[0]
    assert json.loads(far.ctl('streams', '--json', columns=80)[0]) == far.answers['streams']


def test_an_error_without_an_answer_has_no_status(far):
    failed = stream('a', last_error={'time': '2026-01-02T03:04:01.000Z', 'status': None, 'text': 'could not be reached'})
    far.answers.update(streams=streams(failed), stream=failed)
    for out in (far.ctl('streams', columns=200)[0], far.ctl('stream', 'a')[0]):
        assert re.search(r'(?<!0) could not be reached', out), out


def test_a_name_without_an_address_is_told(far):
    answer = {'verdict': 'allow', 'rule': 'harness', 'reason': 'allowed', 'addresses': [], 'parent': None,
              'resolving': 'app.harness.io: there is no such name'}
    far.answers['policy/explain'] = answer
    assert 'no address now: app.harness.io: there is no such name' in far.ctl('policy', 'explain', 'app.harness.io:443')[0]


def test_columns_stand_under_their_heads_whatever_the_width_of_letters(far):
    far.answers['tunnels'] = {'open': 3, 'matched': 3, 'tunnels': [
        {'id': i, 'kind': 'tunnel', 'listener': 'proxy', 'client': '10.0.0.1:5', 'identity': name, 'destination': 'a.b:443',
         'dialled': '1.2.3.4:443', 'via': None, 'rule': 'rule', 'started': '2026-01-02T03:04:01.000Z', 'age_seconds': 5,
         'bytes_up': 5000, 'bytes_down': 7000000, 'idle_seconds': 0.5} for i, name in enumerate(
             ['plain', '日本語', 'e\u0301te\u0301'])]}
    out = far.ctl('tunnels', columns=100)[0]
    lines = out.splitlines()
    at = [width(line[:line.index('5.0s')]) for line in lines[1:4]]
    assert at == [at[0]] * 3, out
    assert '4.9 KiB' in out and '6.7 MiB' in out


def test_lists_pass_the_choice_on(far):
    far.answers.update(streams=streams(), tunnels={'open': 2, 'groups': [
        {'name': 'a.b:443', 'open': 2, 'bytes_up': 1, 'bytes_down': 2, 'oldest_seconds': 7}]},
        denials={'denied': 3, 'would_deny': 1, 'denials': []})
    far.ctl('streams', '--search', 'A&b=c', '--sort', 'age', '--limit', '7')
    far.ctl('streams', '--state', 'held')
    far.ctl('streams')
    assert 'a.b:443' in far.ctl('tunnels', '--by', 'destination', '--search', 'x')[0]
    assert '3 denied, 1 would have been' in far.ctl('denials', '-n', '3')[0]
    assert far.asked == [
        ('GET', 'streams', {'search': 'A&b=c', 'state': 'all', 'sort': 'age', 'limit': '7'}),
        ('GET', 'streams', {'state': 'held'}), ('GET', 'streams', {'state': 'waiting'}),
        ('GET', 'tunnels', {'search': 'x', 'by': 'destination'}), ('GET', 'denials', {'limit': '3'})]


def hostile_answers():
    h = HOSTILE
    one = {'time': '2026-01-02T03:04:05.678Z', 'client': h, 'identity': h, 'listener': h, 'kind': h, 'destination': h,
           'rule': h, 'reason': h, 'verdict': h, 'count': 2}
    error = {'time': h, 'status': 500, 'text': h}
    return {
        'status': status(state=h, version=h, not_ready=[h], ready=False, problems=[problem(h, h, h)], listeners=[
            {'name': h, 'mode': h, 'address': h, 'tls': False}], certificates=[
            {'name': h, 'subject': h, 'not_after': h, 'expires_in_seconds': 3}], upstreams=[
            {'host': h, 'kind': h, 'state': h, 'limit': 1, 'in_flight': 0, 'last_success': h, 'last_error': error}],
            config={'file': h, 'last_error': h, 'generation': 1, 'policy_mode': h}),
        'upstreams': {'upstreams': [{'host': h, 'kind': h, 'state': h, 'last_error': error}]},
        'listeners': {'listeners': [{'name': h, 'mode': h, 'address': h, 'tls': False}]},
        'certificates': {'certificates': [{'name': h, 'subject': h, 'not_after': h, 'expires_in_seconds': 3}]},
        'streams': streams(stream(h, account=h, route=h, state=h, last_error=error)),
        'stream': stream(h, account=h, route=h, state=h, last_error=error, more=h, lives=[{'since': h, 'open_upstream': h}]),
        'tunnels': {'open': 1, 'matched': 1, 'tunnels': [{**one, 'id': h, 'via': h, 'dialled': h}]},
        'denials': {'denied': 1, 'would_deny': 0, 'denials': [one]},
        'policy/explain': {'verdict': h, 'rule': h, 'reason': h, 'parent': h, 'addresses': [
            {'address': h, 'class': h, 'verdict': h, 'rule': h, 'reason': h}]},
        'config': {'generation': 1, 'file': h, 'text': h + '\n' + h},
        'log-level': {'level': h}, 'version': {'version': h, 'pid': 1, 'generation': 1},
        'dead': {'letters': [{'id': 1, 'kind': h, 'buried': h, 'key': h}], 'next': 0},
        'dead/1': {'explanation': [h], 'advice': h},
        'history': {'step_seconds': 10, 'points': [{'lines_in': h}]},
        'tail': Streamed([json.dumps({'time': h, 'lines': [{'out': h + '\n', 'level': h}]}).encode() + b'\n',
                          b'{"missed": 3}\n{"end": "closed"}\n']),
        'reload': {'generation': 2, 'needs_restart': [h]},
    }


COMMANDS = (['status'], ['top'], ['upstreams'], ['listeners'], ['certificates'], ['streams'], ['stream', 'evil'],
            ['tail', 'evil'], ['tunnels'], ['tunnels', '--by', 'client'], ['denials'], ['policy', 'explain', 'a:1'],
            ['config'], ['log-level'], ['version'], ['dead', 'list'], ['dead', 'explain', '1'], ['history'], ['reload'])


def test_no_text_speaks_to_the_terminal_or_turns_it_round(far):
    far.answers.update(hostile_answers())
    for words in COMMANDS:
        for columns in (80, None):
            out, err = far.ctl(*words, columns=columns)
            said = out + err
            assert 'evil' in said or words[-1] in ('client', 'history'), (words, said)
            assert not [c for c in said if c != '\n' and not c.isprintable()], (words, repr(said))
        out = far.ctl('--json', *words)[0]
        assert not [c for c in out if c != '\n' and not (c.isprintable() and c.isascii())], (words, repr(out))
        assert 'evil' in out, words


def test_what_the_gateway_refuses_is_said_harmlessly(far):
    far.answers.update({'streams': (500, {'error': HOSTILE}), 'denials': (503, b'<html>')})
    err = far.ctl('streams', code=1)[1]
    assert 'evil' in err and not [c for c in err if c != '\n' and not c.isprintable()]
    assert 'the gateway answered 503' in far.ctl('denials', code=1)[1]


# --- history --------------------------------------------------------------------------------------

def test_history_is_drawn_as_bars(far):
    points = [{'lines_in': i, 'lines_out': 0, 'ack_p50_seconds': None, 'spool_bytes': 1 << 20} for i in range(360)]
    far.answers['history'] = {'step_seconds': 10, 'from': '2026-01-02T03:04:05.678Z', 'points': points}
    out = fits(far.ctl('history', columns=80)[0], 80)
    line, = (x for x in out.splitlines() if x.startswith('lines a second in'))
    bars = [ord(c) for c in line if c in '▁▂▃▄▅▆▇█']
    assert bars == sorted(bars) and {0x2582, 0x2588} < set(bars) and len(bars) >= 25
    assert 'now 359, most 359' in line and 'the last 1h00m' in out and '1.0 MiB' in out
    last = far.ctl('history', '--minutes', '2', columns=80)[0]
    assert 'the last 2m00s' in last and last.count('▇') + last.count('█') > 5
    ascii_only = far.ctl('history', columns=80, env={'LC_ALL': 'C'})[0]
    assert ascii_only.isascii() and '#' in ascii_only
    far.answers['history']['points'] = []
    assert 'nothing yet' in far.ctl('history')[0]


# --- one stream -----------------------------------------------------------------------------------

def test_a_stream_is_found_by_a_part_that_only_it_has(far):
    far.answers.update(streams=lambda args: streams(*(stream(n) for n in ('build', 'test', 'test-more')
                                                      if args['search'].lower() in (KEY + n).lower())),
                       stream=lambda args: stream(args['key'][len(KEY):], account=args['account']))
    assert 'level6:build' in far.ctl('stream', 'BUILD')[0]
    assert far.asked[-1] == ('GET', 'stream', {'account': 'acct', 'key': KEY + 'build'})
    far.ctl('stream', KEY + 'test')       # the whole key, though another has it within
    assert far.asked[-1][2]['key'] == KEY + 'test'
    err = far.ctl('stream', 'test', code=1)[1]
    assert 'more than one' in err and KEY + 'test-more' in err
    assert 'no stream has that' in far.ctl('stream', 'nothing', code=1)[1]
    far.ctl('stream', 'a whole key', '--account', 'other')
    assert far.asked[-1] == ('GET', 'stream', {'account': 'other', 'key': 'a whole key'})


def lines_of(*texts, **more):
    return json.dumps({'time': 't', 'lines': [{'level': 'info', 'pos': i, 'out': t, **more} for i, t in
                                              enumerate(texts)]}).encode() + b'\n'


def test_tail_of_a_closed_stream_says_so(far):
    far.answers.update(streams=streams(stream()), tail=Streamed([b'{"begin":"open"}\n', b'{"end":"over"}\n']))
    assert far.ctl('tail', 'step')[1] == ''
    far.answers['tail'] = Streamed([b'{"begin":"closed"}\n', b'{"end":"over"}\n'])
    assert 'this stream is closed' in far.ctl('tail', 'step')[1]


def test_tail_shows_lines_as_they_are_and_ends_with_the_stream(far):
    far.answers.update(streams=streams(stream()), tail=Streamed([
        lines_of('one\n', 'two'), lines_of('\x1b[1;32mgreen\x1b[0m\ttab 日本\x1b]0;title\x07\n'), b'{"missed": 7}\n',
        lines_of('{}'), b'{"end":"closed"}\n']))
    out, err = far.ctl('tail', 'step', '--last', '3')
    assert out == 'one\ntwo\ngreen\ttab 日本?]0;title?\n{}\n' and '7 lines were missed' in err
    assert far.asked[-1] == ('GET', 'tail', {'account': 'acct', 'key': KEY + 'step', 'last': '3'})
    raw = [json.loads(line) for line in far.ctl('tail', 'step', '--json')[0].splitlines()]
    assert [r for r in raw if 'lines' in r][0]['lines'][0]['out'] == 'one\n' and raw[-1] == {'end': 'closed'}


def test_tail_that_may_not_be(far):
    far.answers.update(streams=streams(stream()), tail=(403, {'error': 'control.tail is no'}))
    assert far.ctl('tail', 'step', code=1) == ('', 'tailracectl: control.tail is no\n')


@pytest.mark.parametrize('signo, code', [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_tail_ends_when_it_is_told_to(far, signo, code):
    far.answers.update(streams=streams(stream()), tail=Streamed([lines_of('begun\n'), None]))
    with Terminal([*far.command, 'tail', 'step']) as t:
        t.wait(lambda t: 'begun' in t.shown())
        t.signal(signo)
        assert t.end() == code and 'Trace' not in t.shown()


def test_tail_tells_when_the_gateway_goes(far):
    far.answers.update(streams=streams(stream()), tail=Streamed([lines_of('begun\n'), None]))
    with Terminal([*far.command, 'tail', 'step']) as t:
        t.wait(lambda t: 'begun' in t.shown())
        far.stop()
        assert t.end() == 3 and 'broke the answer off' in t.shown()


# --- top ------------------------------------------------------------------------------------------

def events(*pieces, more=None):
    return Streamed([*(b'event: %s\ndata: %s\n\n' % (name.encode(), json.dumps(data).encode()) for name, data in pieces),
                     *([None] if more is None else more)])


def lively(far, **over):
    points = [{'lines_in': i % 7, 'spooled_lines': i} for i in range(100)]
    far.answers.update({
        'events': events(('status', status(**over)), ('history', {'lines_in': 9, 'spooled_lines': 3})),
        'history': {'step_seconds': 10, 'points': points},
        'streams': streams(*(stream(f'step{i}') for i in range(60))),
        'tunnels': {'open': 0, 'matched': 0, 'tunnels': []}, 'denials': {'denied': 1, 'would_deny': 0, 'denials': [
            {'time': '2026-01-02T03:04:05.678Z', 'client': '10.0.0.9', 'identity': None, 'listener': 'proxy', 'kind': 'tunnel',
             'destination': 'bad.example:443', 'rule': 'the-rule', 'reason': 'not listed', 'verdict': 'deny', 'count': 4}]},
        'upstreams': {'upstreams': status()['upstreams']}})


def top(far, lines=24, columns=80, **env):
    return Terminal([*far.command, 'top'], lines, columns, env={'LC_ALL': 'C.UTF-8', **env})


def is_drawn(t):
    return 'ALL IS WELL' in t.shown() and 'step0' in t.shown() and '▇' in t.shown()


def assert_left(t):
    assert (t.alternate, t.cursor, t.wrap, t.has_echo()) == (False, True, True, True)


@pytest.mark.parametrize('lines, columns', [(24, 80), (50, 200), (10, 40)])
def test_top_fits_its_terminal(far, lines, columns):
    lively(far, problems=[problem('warning', 'x' * 100, 'y' * 300)] * 9)
    with top(far, lines, columns) as t:
        t.wait(lambda t: 'q quit' in t.shown() and '9 WARNINGS' in t.shown() and ('step0' in t.shown() or lines < 24))
        assert t.alternate and not t.cursor and not t.has_echo()
        assert len(t.screen) == lines and not t.too_wide and t.screen[-1], t.shown()
        assert 'and 6 more' in t.shown() or lines != 24
        t.press('q')
        assert t.end() == 0
        assert_left(t)


def test_top_takes_the_size_that_it_is_given(far):
    lively(far)
    with top(far) as t:
        t.wait(is_drawn)
        t.resize(50, 200)
        t.wait(lambda t: len(t.screen) == 50 and 'q quit' in t.shown().splitlines()[-1])
        t.too_wide.clear()
        t.resize(12, 60)
        t.wait(lambda t: 'q quit' in ''.join(t.screen[11]) and len(t.screen) == 12)
        t.press('q')
        assert t.end() == 0


def test_top_shows_other_tables_by_keys(far):
    lively(far)
    with top(far) as t:
        t.wait(is_drawn)
        t.press('d')
        t.wait(lambda t: 'bad.example:443' in t.shown() and 'step0' not in t.shown())
        t.press('u')
        t.wait(lambda t: 'bad.example' not in t.shown() and 'storage.googleapis' in t.shown())
        t.press('t')
        t.wait(lambda t: 'DESTINATION' in t.shown())
        t.press('x\x1b[As')
        t.press('s')
        t.wait(lambda t: 'step0' in t.shown())
        t.press('q')
        assert t.end() == 0


@pytest.mark.parametrize('signo, code', [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP),
                                         (signal.SIGQUIT, -signal.SIGQUIT)])
def test_top_gives_the_terminal_back(far, signo, code):
    lively(far)
    with top(far) as t:
        t.wait(is_drawn)
        t.signal(signo)
        assert t.end() == code
        assert_left(t)


def test_top_gives_the_terminal_back_while_it_is_stopped(far):
    lively(far)
    with top(far) as t:
        t.wait(is_drawn)
        t.press('\x1a')
        t.wait(lambda t: not t.alternate and t.cursor and t.has_echo())
        wait_for(lambda: open(f'/proc/{t.pid}/stat').read().split()[2] == 'T', what='the stop')
        t.signal(signal.SIGCONT)
        t.wait(lambda t: t.alternate and not t.has_echo() and is_drawn(t))
        t.press('q')
        assert t.end() == 0


def test_top_lives_through_a_restart_of_the_gateway(far):
    lively(far)
    with top(far) as t:
        t.wait(is_drawn)
        far.stop()
        t.wait(lambda t: 'no news for' in t.shown() and 'ALL IS WELL' in t.shown())
        lively(far, pid=4711)
        far.start()
        t.wait(lambda t: 'process 4711' in t.shown() and 'no news' not in t.shown())
        t.press('q')
        assert t.end() == 0


def test_top_asks_a_gateway_that_sends_no_events(far):
    lively(far)
    del far.answers['events']
    with top(far) as t:
        t.wait(is_drawn)
        far.answers['status'] = status(pid=4712)
        t.wait(lambda t: 'process 4712' in t.shown())
        t.press('q')
        assert t.end() == 0


def test_top_once_where_there_is_no_terminal(far):
    lively(far)
    out = fits(far.ctl('top', columns=80)[0], 80)
    assert 'ALL IS WELL' in out and 'step0' in out and '\x1b' not in out
    assert json.loads(far.ctl('top', '--json')[0]) == status()


def test_top_without_a_gateway(tmp_path):
    with Terminal([CTL, '--socket', str(tmp_path / 'none'), 'top']) as t:
        assert t.end() == 3 and b'\x1b' not in t.raw and 'cannot connect' in t.shown()


def test_colour_is_for_terminals_that_want_it(far):
    for env, painted in (({}, True), ({'NO_COLOR': '1'}, False), ({'TERM': 'dumb'}, False), ({'NO_COLOR': ''}, True)):
        with Terminal([*far.command, 'status'], env=env) as t:
            assert t.end() == 0
            assert t.painted == painted, env
    assert '\x1b' not in far.ctl('status')[0]


# --- words ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('words, said', [
    (['stauts'], 'do you mean status?'), (['dead', 'lst'], 'do you mean dead list?'), (['polcy', 'explain', 'a:1'], 'policy explain'),
    (['dead'], 'do you mean dead list?'), (['xyzzy'], '"xyzzy" is no command\n'), (['streams', '--stat', 'x', '--jsno'], '--'),
    (['--jsno', 'status'], 'do you mean --json?'), (['streams', '--state', 'wating'], 'is none of: waiting open'),
    (['streams', '--limit', 'x'], 'is no whole number'), (['streams', '--limit'], 'needs a value'),
    (['status', '--yes'], 'status takes no --yes'), (['status', 'now'], 'usage: tailracectl status'),
    (['stream'], 'usage: tailracectl stream KEY'), (['dead', 'replay'], 'ID...|--all'), (['--json=1', 'status'], 'has no value'),
    (['completion', 'tcsh'], 'bash zsh fish'), (['help', 'stauts'], 'see status'), ([], 'usage: tailracectl'),
    (['-x'], 'there is no option "-x"'), (['\x1b[2J'], 'is no command'),
])
def test_what_is_not_understood(far, words, said):
    out, err = far.ctl(*words, code=2)
    assert said in err and out == '' and far.asked == []
    assert '\x1b' not in err


def test_help(far):
    out = fits(far.ctl('--help')[0], 80)
    table = json.loads(far.ctl('help', '--json')[0])
    names = [c['name'] for c in table['commands']]
    assert {'status', 'top', 'streams', 'stream', 'tail', 'tunnels', 'policy explain', 'dead list', 'spool verify', 'drain',
            'reload', 'log-level', 'upgrade', 'version', 'completion'} <= set(names)
    assert far.ctl('help')[0] == out
    for command in table['commands']:
        assert f'\n  {command["name"]} ' in out
        one = fits(far.ctl('help', *command['name'].split())[0], 80)
        assert one == far.ctl(*command['name'].split(), '--help')[0]
        assert one.startswith(f'usage: tailracectl {command["name"]}')
        assert all(f'--{o["name"]}' in one for o in command['options'] + table['options'])
    assert far.asked == []


def test_nobody_there(tmp_path):
    with StandinGateway(tmp_path) as far:
        far.stop()
        assert 'is tailrace running?' in far.ctl('status', code=3)[1]
        far.ctl('tail', 'x', code=3)
        far.ctl('streams', '--json', code=3)
    assert not os.path.exists(far.socket)
