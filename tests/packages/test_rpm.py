"""The RPM package, made by rpmbuild out of the tree that the Debian package was built in: what is compiled is the same. So
%install and %files are tried in full; BuildRequires and the compiler's options of Fedora are not."""
import re
import shutil
import subprocess

import pytest
from tree import TOP, run

SPEC = TOP / 'contrib' / 'rpm' / 'tailrace.spec'
# What systemd-rpm-macros and Fedora's macros say.
MACROS = {'_unitdir': '/usr/lib/systemd/system', '_sysusersdir': '/usr/lib/sysusers.d', '_tmpfilesdir': '/usr/lib/tmpfiles.d',
          '_docdir': '/usr/share/doc', '_docdir_fmt': '%%{NAME}', '_mandir': '/usr/share/man', '_libexecdir': '/usr/libexec'}

pytestmark = pytest.mark.skipif(not shutil.which('rpmbuild'), reason='rpm is not installed')


def defined(**more):
    return [word for name, value in {**MACROS, **more}.items() for word in ('--define', f'{name} {value}')]


def test_the_spec_parses():
    text = run('rpmspec', *defined(), '-P', str(SPEC))
    for line in text.splitlines():
        if line.startswith(('install -D', '%doc')):
            for word in line.split():
                assert not word.startswith('contrib/') or (TOP / word).exists(), word
    assert '%{' not in text.split('%install')[1], 'a macro that is not known'


@pytest.fixture(scope='module')
def package(deb, tmp_path_factory):
    tree = deb.parent / 'tree'
    if not (tree / 'tailracectl').exists():
        pytest.skip('no built tree beside the Debian package')
    top = tmp_path_factory.mktemp('rpm')
    (top / 'BUILD').mkdir()
    version = run('rpmspec', *defined(), '-q', '--srpm', '--qf', '%{VERSION}', str(SPEC))
    (top / 'BUILD' / f'tailrace-{version}').symlink_to(tree)
    for step in ('-bi', '-bb'):     # as far as into the build root; what is there into the package
        done = subprocess.run(['rpmbuild', step, '--short-circuit', '--nodeps', '--dbpath', str(top / 'db'),
                               '--buildroot', str(top / 'root'),
                               *defined(_topdir=top, debug_package='%{nil}', __os_install_post='%{nil}'), str(SPEC)],
                              capture_output=True, text=True, timeout=100)
        # Files that are installed and not listed, or listed and not installed, are errors of rpmbuild.
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next((top / 'RPMS').rglob('*.rpm'))


def query(package, *args):
    return run('rpm', '--dbpath', str(package.parent / 'db'), '-qp', *args, str(package)).splitlines()


def test_it_has_what_the_debian_package_has(package, unpacked):
    """But for what each system has for itself."""
    here = {re.sub(r'\.gz$', '', f) for f in query(package, '-l')}
    there = {re.sub(r'\.gz$', '', f'/{p.relative_to(unpacked)}') for p in unpacked.rglob('*') if p.is_file()}
    there = {re.sub('^/lib/', '/usr/lib/', f).replace('/zsh/vendor-completions/', '/zsh/site-functions/') for f in there}
    doc = '/usr/share/doc/tailrace'
    assert there - here == {f'{doc}/README.Debian', f'{doc}/changelog', f'{doc}/copyright'}


def test_its_configuration_is_kept_and_its_scripts_are_sound(package):
    assert query(package, '-c') == ['/etc/logrotate.d/tailrace']
    assert '/etc/tailrace' in query(package, '-l')
    scripts = run('rpm', '--dbpath', str(package.parent / 'db'), '-qp', '--scripts', str(package))
    assert '/usr/libexec/tailrace/take-over' in scripts
    for script in re.split(r'^\w+ scriptlet \(using /bin/sh\):\n', scripts, flags=re.M)[1:]:
        run('sh', '-n', '-c', script)
