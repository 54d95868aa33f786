"""Alerts and dashboard: right by themselves, about figures that the gateway has, and with words on what to do."""
import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml
from calls import Api
from gateway import Gateway, key, wait_for
from proxies import ask, dial, place
from standin.certs import CA
from standin.harness import Harness
from tree import TOP

RULES = TOP / 'contrib' / 'prometheus' / 'rules.yml'
DASHBOARD = TOP / 'contrib' / 'grafana' / 'tailrace-dashboard.json'
NOT_A_FIGURE = {'le', 'up', 'job', 'instance'}

alerts = [rule for group in yaml.safe_load(RULES.read_text())['groups'] for rule in group['rules']]


def promtool(*args):
    if not shutil.which('promtool'):
        pytest.skip('promtool (Debian: prometheus) is not installed')
    done = subprocess.run(['promtool', *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_no_mistake_in_the_rules():
    promtool('check', 'rules', str(RULES))


def test_every_alert_fires_when_it_should_and_not_else():
    promtool('test', 'rules', str(RULES.with_name('tests.yml')))


def test_every_alert_has_a_test():
    tests = RULES.with_name('tests.yml').read_text()
    assert [a['alert'] for a in alerts if a['alert'] not in tests] == []


@pytest.mark.parametrize('alert', alerts, ids=lambda a: a['alert'])
def test_every_alert_says_what_it_is_and_leads_to_a_section(alert):
    assert alert['labels']['severity'] in ('page', 'ticket')
    assert '$labels.instance' in alert['annotations']['summary']
    path, _, anchor = alert['annotations']['runbook_url'].partition('#')
    headings = re.findall(r'^#+ (.*)$', (TOP / path).read_text(), re.M)
    assert anchor in [re.sub(r'[^\w -]', '', h.lower()).replace(' ', '-') for h in headings]
    section = re.search(rf'^### {anchor}\n(.*?)(?=^##|\Z)', (TOP / path).read_text(), re.M | re.S | re.I).group(1)
    assert len(section.split()) > 20
    assert anchor == alert['alert'].lower() or alert['alert'] in section


def test_links_of_the_dashboard_lead_to_sections():
    text = (TOP / 'docs' / 'operations.md').read_text().lower()
    for panel in panels():
        for link in panel.get('links', []):
            assert '### ' + link['url'].partition('#')[2] + '\n' in text, panel['title']


def panels():
    return [p for p in json.loads(DASHBOARD.read_text())['panels'] if p['type'] != 'row']


def expressions():
    dashboard = [(p['title'], q['expr']) for p in panels() for q in p['targets']]
    return [(a['alert'], a['expr']) for a in alerts] + dashboard


def test_the_dashboard_is_laid_out():
    """Nothing lies over something else or beyond the edge; ids are unique; each panel asks something."""
    taken, ids = set(), []
    for panel in json.loads(DASHBOARD.read_text())['panels']:
        ids.append(panel['id'])
        g = panel['gridPos']
        assert g['x'] + g['w'] <= 24
        cells = {(x, y) for x in range(g['x'], g['x'] + g['w']) for y in range(g['y'], g['y'] + g['h'])}
        assert not cells & taken, panel['title']
        taken |= cells
        assert panel['type'] == 'row' or all(q['expr'] for q in panel['targets'])
    assert len(ids) == len(set(ids))


def test_queries_of_the_dashboard_parse(tmp_path):
    """As recording rules: promtool reads the expressions of those."""
    rules = [{'record': f'panel:query:{i}', 'expr': re.sub(r'\$(job|instance)', '.*', expr)}
             for i, (_, expr) in enumerate(expressions())]
    (tmp_path / 'rules.yml').write_text(yaml.safe_dump({'groups': [{'name': 'dashboard', 'rules': rules}]}))
    promtool('check', 'rules', str(tmp_path / 'rules.yml'))


@pytest.fixture(scope='module')
def figures(tmp_path_factory):
    """{name: set of its labels' names} of a gateway that has done a bit of everything."""
    top = tmp_path_factory.mktemp('watching')
    ca = CA(top)
    leaf, leaf_key = ca.issue('localhost')
    with Harness() as far, place() as target:
        options = {
            'listen': {'proxy': {'address': '127.0.0.1:0'},
                       'tls': {'mode': 'upstream', 'address': '127.0.0.1:0', 'certificate': leaf, 'key': leaf_key},
                       'orders': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': f'127.0.0.1:{target.port}'},
                       'grpc': {'address': '127.0.0.1:0', 'to': f'http://127.0.0.1:{target.port}'}},
            'egress': {'mode': 'report', 'profile': 'none', 'connect-timeout': '2s'},
            'limits': {'connections': 20},
        }
        with Gateway(top / 'gw', far.url, **options) as gw:
            live(gw, far)
            yield {name: labels for name, labels in scrape(gw).items()}


def live(gw, far):
    api = Api(gw.log_url)
    api.open(key())
    api.put(key(), 'one')
    api.blob(key(), b'{"out":"one"}\n')
    api.delete(key())
    gw.wait_delivered()
    far.wait(lambda h: h.blob('acct', key()))
    try:
        urllib.request.urlopen(gw.url + '/api/version', timeout=10).close()
    except urllib.error.HTTPError:
        pass                                                    # relayed, whatever became of it
    api.close()
    ask(gw, 'nowhere.invalid:443')[0].close()                   # would be denied
    with dial(gw, 'orders') as s:
        s.sendall(b'?')
        assert s.recv(1) == b'?'
    too_many(gw)
    with dial(gw, 'upstream') as s:
        s.sendall(b'GET / HTTP/1.1\r\nno field\r\n\r\n')
        s.recv(100)


def too_many(gw):
    """More connections than there may be; some are refused, while they are made or right after."""
    with contextlib.ExitStack() as stack:
        many, refused = [], []
        for _ in range(30):
            try:
                many.append(stack.enter_context(dial(gw, 'proxy')))
            except OSError as e:
                refused.append(e)
        wait_for(lambda: refused or any(gone(s) for s in many), what='a connection that is refused')
    wait_for(lambda: gw.metric('overload_refused_total') > 0, what='its count')


def gone(s):
    s.setblocking(False)
    try:
        return s.recv(1) == b''
    except BlockingIOError:
        return False
    except OSError:
        return True


def scrape(gw):
    found = {}
    for name, labels in re.findall(r'^([a-z_]+)(?:\{(.*?)\})? \S+$', gw.get('/metrics')[1], re.M):
        found.setdefault(name, set()).update(re.findall(r'([a-z_]+)="', labels))
    return found


# Series that take more than a test of figures to appear: what they are called stands in the source.
RARE = {'tailrace_grpc_calls_total': 'status'}


def test_every_figure_that_is_asked_for_is_there(figures):
    for title, expr in expressions():
        names = set(re.findall(r'tailrace_[a-z_]+', expr))
        assert names or expr.startswith('up{'), title
        for name in names:
            assert name in figures or name in RARE, f'{title}: {name}'
            labels = figures.get(name) or {RARE.get(name)}
            asked = set(re.findall(r'([a-z_]+)(?:=|!=|=~|!~)"', ' '.join(re.findall(name + r'\{(.*?)\}', expr))))
            if len(names) == 1:
                for group in re.findall(r'by \(([a-z_, ]*)\)', expr):
                    asked |= set(re.split(r',\s*', group))
            assert asked - NOT_A_FIGURE <= labels, f'{title}: {name}: {asked - labels}'


@pytest.mark.parametrize('name', ['ack_seconds_bucket', 'delivery_seconds_bucket', 'tunnels_by_kind', 'streams_waiting',
                                  'upstream_state', 'ledger_lines', 'spool_full_in_seconds', 'denied_total',
                                  'certificate_expiry_seconds'])
def test_the_dashboard_shows(name):
    assert any('tailrace_' + name in expr for _, expr in expressions()[len(alerts):])


def test_what_stands_in_the_documentation_is_there(figures):
    """The table of figures in docs/operations.md, and nothing in an alert that it does not explain."""
    table = set(re.findall(r'`([a-z_]+)(?:\{[a-z,]+\})?`', '\n'.join(
        row.split('|')[1] for row in (TOP / 'docs' / 'operations.md').read_text().splitlines() if row.startswith('| `'))))
    for a in alerts:
        for name in re.findall(r'tailrace_([a-z_]+)', a['expr']):
            assert name in table or name.removesuffix('_bucket') in table, f'{a["alert"]}: {name}'
