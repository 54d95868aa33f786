"""The status page in headless Chromium: what it shows is what the gateway says, and nothing else happens."""
import json
import os
import subprocess
import threading

import pytest
from calls import Api
from gateway import BINARY, key, wait_for

CTL = os.environ.get('TAILRACECTL') or os.path.join(os.path.dirname(BINARY), 'tailracectl')

HASH = subprocess.run(['openssl', 'passwd', '-6', '-salt', 'saltsalt', 'correct horse'], capture_output=True, text=True,
                      check=True).stdout.strip()
HOSTILE = '<img/src=x/onerror=document.title="owned">'

# The exact figure behind what is shown: its title, or, where nothing was shortened, its text.
FIGURE = '''(s => {{ const e = document.querySelector(s); return e && Number((e.title || e.textContent).replaceAll(',', '')); }})({})'''
ROWS = '[...document.querySelectorAll("#stream-table tbody tr:not(.says):not(.detail)")].map(r => r.querySelector(".clip").title)'


def figure(page, selector):
    return page.ask(FIGURE.format(json.dumps(selector)))


def fact(page, part, name):
    """What stands beside that name in a list of facts."""
    return page.ask(f'[...document.querySelectorAll("#{part} dt")].find(d => d.textContent === {json.dumps(name)})?.nextSibling.textContent')


def api_of(gw, path):
    status, text = gw.get('/api/v1/' + path)
    assert status == 200, text
    return json.loads(text)


def see(page, part):
    page.ask(f'document.getElementById("{part}").scrollIntoView({{behavior: "instant"}})')


def busy(gw, n=3, name='s'):
    """Streams with lines; the first has a log and an end."""
    api = Api(gw.log_url)
    for i in range(n):
        assert api.open(key(f'{name}{i}'))[0] == 204
        assert api.put(key(f'{name}{i}'), *[f'line {k}\n' for k in range(5 + i)])[0] == 204
    assert api.blob(key(f'{name}0'), b'{"out":"x"}\n')[0] == 204
    assert api.delete(key(f'{name}0'))[0] == 204
    api.close()
    gw.wait_delivered()


def lines_of(page):
    return {name: figure(page, f'[data-figure="lines-{name}"]') for name in
            ('delivered', 'spooled', 'superseded', 'settled', 'late', 'refused', 'dead')}


def test_it_shows_the_figures_of_the_api(far, gw, open_page):
    busy(gw)
    page = open_page(gw)
    status = api_of(gw, 'status')
    lines = status['ledger']['lines']
    assert lines['accepted'] == 18
    page.wait(f'{FIGURE.format(json.dumps("#ledger-lines .total strong"))} === 18')
    shown = lines_of(page)
    assert shown == {name: lines[name] for name in shown}
    blobs = status['ledger']['blobs']
    assert figure(page, '[data-figure="blobs-delivered"]') == blobs['delivered'] == 1
    assert page.text('#balance') == 'It balances.'
    assert fact(page, 'gateway-facts', 'version') == status['version']
    assert fact(page, 'gateway-facts', 'generation') == '1'
    assert page.text('#listener-table').count('127.0.0.1') == len(gw.ports)
    # The same in the metrics.
    assert {k: v for k, v in gw.ledger().items() if k in shown} == shown


def test_it_updates_by_itself(far, gw, api, open_page):
    page = open_page(gw)
    page.wait('document.getElementById("summary").textContent.startsWith("Nobody logs")')
    assert api.open(key())[0] == 204
    assert api.put(key(), 'a\n', 'b\n')[0] == 204
    page.wait(f'{FIGURE.format(json.dumps("#ledger-lines .total strong"))} === 2')
    see(page, 'streams')
    page.wait(f'({ROWS}).length === 1')


STATES = ('delivered', 'spooled', 'superseded', 'settled', 'late', 'refused', 'dead')


def looked(page):
    """All the page says of lines, at one moment."""
    return page.ask(f'''(f => ({{accepted: f("#ledger-lines .total strong"), glance: f("#glance div:nth-child(3) dd"),
        ...Object.fromEntries({json.dumps(STATES)}.map(s => [s, f(`[data-figure="lines-${{s}}"]`)]))}}))
        (s => {{ const e = document.querySelector(s); return Number((e.title || e.textContent).replaceAll(",", "")); }})''')


def test_figures_agree_under_load(far, gw, open_page):
    """While lines stream in, what the page shows is one moment's: it balances, and lies between what the metrics said a while
    before and say now. When they end, page, tailracectl and metrics say the same of everything."""
    page = open_page(gw)
    stop = threading.Event()

    def write(i):
        api, n = Api(gw.log_url), 0
        api.open(key(f'load{i}'))
        while not stop.is_set():
            api.put(key(f'load{i}'), *[f'{n} {k}\n' for k in range(5)], start=5 * n)
            n += 1
        api.close()
    writers = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for w in writers:
        w.start()
    try:
        least = 0
        for _ in range(4):
            before = gw.ledger()['accepted']
            page.wait(f'{FIGURE.format(json.dumps("#ledger-lines .total strong"))} > {before}', what='a later event')
            seen = looked(page)
            assert seen['accepted'] == sum(seen[s] for s in STATES) and seen['glance'] == seen['spooled'], seen
            assert least < seen['accepted'] <= gw.ledger()['accepted']
            least = seen['accepted']
    finally:
        stop.set()
        for w in writers:
            w.join()
    gw.wait_delivered()
    ledger = gw.ledger()
    told = json.loads(subprocess.run([CTL, '-c', str(gw.config_path), '--json', 'status'], capture_output=True, text=True,
                                     timeout=20, check=True).stdout)
    page.wait(f'{FIGURE.format(json.dumps("[data-figure=lines-delivered]"))} === {ledger["delivered"]}')
    seen = looked(page)
    assert {k: seen[k] for k in ledger} == ledger == told['ledger']['lines']
    assert figure(page, '#glance div:nth-child(6) dd') == told['dead_letters'] == gw.metric('dead_letters')
    assert fact(page, 'gateway-facts', 'streams known') == str(told['streams']['known']) == str(int(gw.metric('streams')))
    assert fact(page, 'gateway-facts', 'generation') == str(told['config']['generation'])


def test_an_outage_is_told(far, gw, api, open_page):
    page = open_page(gw)
    far.stop()
    assert api.open(key())[0] == 204
    assert api.put(key(), 'a\n', 'b\n', 'c\n')[0] == 204
    page.wait('document.querySelector("#upstream-table td[data-mark=down]") !== null', what='the upstream that is down')
    page.wait('document.getElementById("summary").textContent.includes("until upstream is back")')
    page.wait(f'{FIGURE.format(json.dumps("[data-figure=lines-spooled]"))} === 3')
    far.start()
    page.wait(f'{FIGURE.format(json.dumps("[data-figure=lines-spooled]"))} === 0', 30)
    page.wait('document.querySelector("#upstream-table td[data-mark=healthy]") !== null')


def test_a_hostile_key_is_text(shared, open_page):
    api = Api(shared.log_url)
    assert api.open(HOSTILE, raw=False)[0] == 204
    assert api.put(HOSTILE, 'x\n', raw=False)[0] == 204
    api.close()
    page = open_page(shared)
    see(page, 'streams')
    page.type('#search', 'onerror')
    page.wait(f'({ROWS}).length === 1')
    assert HOSTILE in page.ask(ROWS)[0]
    assert page.text('#stream-table .clip') == HOSTILE
    page.click('#stream-table .more')
    page.wait('document.querySelectorAll("#stream-table .detail dt").length > 5')
    assert HOSTILE in page.text('#stream-table .detail')
    assert page.ask('document.images.length') == 1 and 'owned' not in page.ask('document.title')
    assert page.ask('[...document.querySelectorAll("script")].length') == 1


def test_search_and_order(shared, open_page):
    busy(shared, n=4, name='order')
    page = open_page(shared)
    see(page, 'streams')
    page.type('#search', 'ORDER')
    page.wait(f'({ROWS}).length === 4')
    page.type('#search', 'oRdEr2')
    page.wait(f'({ROWS}).length === 1')
    assert 'order2' in page.ask(ROWS)[0]
    assert page.text('#stream-count').startswith('1 of ')
    page.type('#search', 'no such stream')
    page.wait('document.querySelector("#stream-table .empty")?.textContent === "No stream fits."')
    page.ask('(() => { const s = document.getElementById("search"); s.value = "order"; s.dispatchEvent(new Event("input")); })()')
    page.wait(f'({ROWS}).length === 4')
    page.click('#stream-table th:first-child button')
    page.wait('document.querySelector("#stream-table th:first-child").ariaSort === "ascending"')
    page.wait(f'(r => r.length === 4 && r.every((x, i) => !i || r[i - 1] < x))({ROWS})')
    # A narrow page has no heads to sort by.
    assert page.ask('getComputedStyle(document.querySelector(".narrow")).display') == 'none'
    page.size(390, 844)
    page.wait('getComputedStyle(document.querySelector(".narrow")).display !== "none"')
    page.ask('(s => { s.value = "age"; s.dispatchEvent(new Event("change")); })(document.getElementById("stream-sort"))')
    page.wait('document.querySelector("#stream-table th:first-child").ariaSort === "none"')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_and_can_be_read(shared, open_page, scheme):
    busy(shared, name=scheme)
    page = open_page(shared, width=390, height=844, scheme=scheme)
    for width in (390, 320, 760, 1000, 1440):
        page.size(width, 844)
        page.wait(f'innerWidth === {width}')
        wide = page.ask('document.documentElement.scrollWidth')
        assert wide == width, f'{wide} at {width}'
    paper, ink = page.ask('(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))')
    luminance = [sum(int(x) for x in c[4:-1].split(',')) for c in (paper, ink)]
    assert (luminance[0] < luminance[1]) == (scheme == 'dark') and abs(luminance[0] - luminance[1]) > 450


def test_the_keyboard_reaches_everything(shared, open_page):
    busy(shared, name='keys')
    page = open_page(shared)
    see(page, 'streams')
    page.wait(f'({ROWS}).length >= 3')
    page.ask('document.body.focus()')
    wanted = {'skip': '.skip', 'state': '.state', 'chart': '.chart', 'search': '#search', 'select': '#stream-state', 'sort': '.sort', 'more': '.more'}
    seen = set()
    for _ in range(70):
        page.key('Tab')
        seen |= {n for n, s in wanted.items() if page.ask(f'document.activeElement.matches({json.dumps(s)})')}
        if seen == set(wanted):
            break
    assert seen == set(wanted)
    page.key('Enter')
    page.wait('document.querySelectorAll("#stream-table .detail").length === 1')
    # What a state means is told to who comes by the keyboard.
    page.ask('document.querySelector(".state.wait").focus()')
    assert 'wait for their delivery' in page.text('#note-lines')


def test_it_comes_back_after_a_restart(far, gw, open_page):
    page = open_page(gw)
    gw.stop()
    page.wait('!document.getElementById("lost").hidden', what='the banner')
    assert 'Not connected since' in page.text('#lost') and page.ask('document.body.classList.contains("stale")')
    gw.start()
    page.wait('document.getElementById("lost").hidden', 20, what='the end of the banner')
    assert fact(page, 'gateway-facts', 'process') == str(gw.pid)
    page.errors[:] = [e for e in page.errors if 'Failed to fetch' not in e and 'ERR_' not in e]


def test_it_follows_to_the_process_that_takes_over(far, gw, open_page):
    page = open_page(gw)
    gw.take_over()
    page.wait(f'[...document.querySelectorAll("#gateway-facts dd")].some(d => d.textContent === "{gw.pid}")', 20, what='the new process')
    page.wait('document.getElementById("lost").hidden')
    page.errors[:] = [e for e in page.errors if 'ERR_' not in e]


def test_without_users_it_only_reads(shared, open_page):
    page = open_page(shared)
    page.wait('document.getElementById("dead-table").rows.length > 0')
    assert page.ask('document.getElementById("can-act").hidden') and not page.ask('document.getElementById("no-actions").hidden')


def test_actions_need_credentials(far, gateway_at, tmp_path, open_page):
    users = tmp_path / 'users'
    users.write_text(f'anna:{HASH}\n')
    users.chmod(0o640)
    gw = gateway_at(far.url, listen={'admin': {'users': str(users)}})
    page = open_page(gw, credentials=[('anna', 'wrong'), None, ('anna', 'correct horse')])
    page.wait('!document.getElementById("can-act").hidden')
    page.click('#act-reload')  # asked twice: a wrong answer, then none
    page.wait('document.getElementById("said").textContent.startsWith("Not done: ")')
    assert page.asked == 2 and gw.metric('config_generation') == 1
    page.click('#act-reload')
    page.wait('document.getElementById("said").textContent.includes("generation 2")')
    assert page.asked == 3 and gw.metric('config_generation') == 2
    # Nothing grave without a question, which may be declined.
    page.click('#act-drain')
    page.wait('document.getElementById("sure").open')
    page.key('Escape')
    page.wait('!document.getElementById("sure").open')
    assert gw.get('/readyz')[0] == 200


def test_a_dead_letter_is_dropped_from_the_page(far, gateway_at, tmp_path, open_page):
    users = tmp_path / 'users'
    users.write_text(f'anna:{HASH}\n')
    users.chmod(0o640)
    gw = gateway_at(far.url, listen={'admin': {'users': str(users)}})
    far.fault('status', 'blob', code=400, count=None)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204 and api.blob(key(), b'{"out":"x"}\n')[0] == 204
    api.close()
    wait_for(lambda: gw.metric('dead_letters') == 1, what='the letter')
    page = open_page(gw, credentials=[('anna', 'correct horse')])
    see(page, 'dead')
    page.wait('document.querySelectorAll("#dead-table td button:not(.more)").length === 2')
    page.click('#dead-table .more')
    page.wait('document.querySelector("#dead-table .detail")?.textContent.includes("Upstream answered 400")')
    page.click('#dead-table td:last-child button:last-child')
    page.wait('document.getElementById("sure").open && document.getElementById("sure-text").textContent.startsWith("Give up")')
    page.click('#sure-yes')
    page.wait('document.querySelector("#dead-table .empty")?.textContent === "There are none."')
    assert gw.metric('dead_letters') == 0 and 'user=anna' in gw.log()


def test_charts(shared, open_page):
    page = open_page(shared)
    wait_for(lambda: len(api_of(shared, 'history')['points']) > 0, 20, what='the first point')
    page.wait('document.querySelector("#chart-lines .time").textContent === "now"', 15)
    assert page.ask('document.querySelectorAll("#chart-lines .axes text").length') >= 6
    assert page.ask('[...document.querySelectorAll("#chart-lines .line.in, #chart-lines .dot.in")].some(p => p.tagName === "circle" || p.getAttribute("d"))')
    # What is read at a point of it.
    page.ask('document.querySelector("#chart-lines .chart").focus()')
    page.key('ArrowLeft')
    assert page.ask('/^\\d\\d:\\d\\d:\\d\\d$/.test(document.querySelector("#chart-lines .time").textContent)')
    assert page.ask('document.querySelectorAll("#chart-lines .cursor").length') == 1
    page.key('Escape')
    assert page.text('#chart-lines .time') == 'now'
