"""Commands that a sandbox without root, systemd, cluster or packages cannot run, and the tests that run them, or what
stands for them, there. A row: a pattern for the whole command, the test ("FILE::NAME", or "tests/run.sh: WORD" for a step
of the whole test run), and why it is not here."""

DEB = 'tests/packages/test_deb.py'
UNIT = 'tests/systemd/test_unit.py'
CHART = 'tests/packages/test_chart.py'
RUN = 'tests/run.sh'

ELSEWHERE = [
    # What the test run itself begins with, and its long steps.
    (r'contrib/demo\.sh', f'{RUN}: demo', 'builds, and takes minutes'),
    (r'tests/run\.sh( --quick)?', f'{RUN}: finish', 'is what runs this test'),
    (r'tests/deps\.sh install \w+', f'{RUN}: deps.sh install test', 'installs packages'),
    (r'\./autogen\.sh', f'{RUN}: autogen.sh', 'changes the source tree'),
    (r'\./configure --prefix=/usr --sysconfdir=/etc', f'{RUN}: configure', 'builds'),
    (r'make( install)?', f'{RUN}: install', 'builds, and installs'),
    (r'make check', f'{RUN}: check', 'takes minutes'),
    (r'make check-(break|faults|crash|power|soak|outage)( \w+=\d+)?', f'{RUN}: check-{{1}}', 'takes minutes'),
    (r'make check-(network|systemd)', f'{RUN}: run_pytest {{1}}', 'needs root'),

    # Packages.
    (r'dpkg-buildpackage -b -us -uc', 'tests/packages/conftest.py::deb', 'builds'),
    (r'apt(-get)? install \S*tailrace_\S*', f'{DEB}::test_01_installed_it_waits_for_a_configuration', 'needs root'),
    (r'apt remove( tailrace)?', f'{DEB}::test_07_removed_it_stops_and_keeps_its_spool', 'needs root'),
    (r'apt purge( tailrace)?', f'{DEB}::test_09_purged_nothing_is_left_but_what_the_admin_wrote', 'needs root'),
    (r'cp /usr/share/doc/tailrace/examples/minimal\.yaml .*', f'{DEB}::test_02_the_two_commands_that_it_tells', 'the package'),

    # The service.
    (r'systemctl start tailrace', f'{DEB}::test_02_the_two_commands_that_it_tells', 'needs systemd'),
    (r'systemctl (restart|status) tailrace', f'{DEB}::test_03_configured_it_carries_logs_as_a_user_of_its_own', 'needs systemd'),
    (r'systemctl reload tailrace', f'{UNIT}::test_reload', 'needs systemd'),
    (r'systemctl stop( tailrace)?', f'{UNIT}::test_stop_ends_all', 'needs systemd'),
    (r'systemctl kill -s USR2 --kill-whom=main tailrace', f'{UNIT}::test_upgrade', 'needs systemd'),
    (r'journalctl -u tailrace.*', f'{UNIT}::test_a_start_that_fails_says_why', 'needs systemd'),
    (r'tailrace serve( -c \S+)?', 'tests/integration/test_first.py', 'runs for ever: the gateway of each test'),
    (r'tailrace serve --takeover -c \S+', 'tests/integration/test_takeover.py', 'a takeover'),
    (r'kill -USR2 PID', 'tests/integration/test_takeover.py', 'a takeover'),
    (r'chown root:tailrace .*', f'{DEB}::test_01_installed_it_waits_for_a_configuration', 'needs root and the user'),

    # A cluster.
    (r'kubectl apply -f contrib/kubernetes.*', f'{CHART}::test_the_program_takes_the_configuration', 'needs a cluster'),
    (r'helm install tailrace contrib/helm/tailrace .*', f'{CHART}::test_what_the_notes_tell_to_do_next_works', 'needs a cluster'),
    (r'kubectl exec POD -- (.*)', 'self: {1}', 'needs a cluster: what is run in the pod is run here'),
    (r'kubectl (describe pod POD|logs POD --previous)', f'{CHART}::test_the_pod_may_do_little', 'needs a cluster'),

    # Others' programs.
    (r'openssl passwd -6', 'self: openssl passwd -6 -stdin', 'asks on a terminal'),
    (r'ssh -L 9464:.*', 'self: curl http://127.0.0.1:9464/', 'needs a second machine: what it leads to is asked for here'),
    (r'curl -sv https://app\.harness\.io/', 'self: curl -sv http://HARNESS/', 'needs Harness: the stand-in is asked'),
]
