# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages' life on a fresh Debian: installed, started, upgraded while a guest is held, removed, purged.

"run" of this folder builds the packages and the root that they are installed on, and has tests/integration/run do this.
All that is installed is the packages' own, but for a drop-in: there is no Xen here, so that conditions go, and what the
hypervisor would say comes from xen.c. Store and guests are those of tests/integration, xenstored is the real one.
"""
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from container import Container, why_none
from fixture import HVM, QUICK, Host, wait_until

WORK = os.environ['P2MGUARD_PACKAGES']  # what "run" has made
UNIT = 'p2mguardd.service'
CONDITIONS = '[Unit]\nConditionPathExists=\n'
VERSIONS = {}
for folder in ('one', 'two'):
    with open(f'{WORK}/{folder}/version', encoding='ascii') as version:
        VERSIONS[folder] = version.read().strip()
# What every installation of any package changes.
PASSING = re.compile(r'^/(dev|proc|sys|srv|tmp|run/(systemd|log)|var/(cache|log)|var/lib/(apt|dpkg))/')

# An overlay, so that each test has a root as it was made.
SCRIPT = r'''
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cd "$ROOT"
mkdir upper work root
mount -t overlay -o "lowerdir=$P2MGUARD_PACKAGES/root,upperdir=$ROOT/upper,workdir=$ROOT/work" overlay root
cd root
mkdir -p old srv/one srv/two
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/pts dev/shm dev/xen
for name in null zero full random urandom tty ptmx; do touch "dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
touch dev/console && mount --bind "$CONSOLE" dev/console
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock
mount -t tmpfs tmpfs tmp
echo 11111111111111111111111111111111 >etc/machine-id
cp -r "$UNITS/." etc/systemd/system/
cp "$P2MGUARD_PACKAGES/xen.so" srv/xen.so
while read -r from to; do
	if [ -d "$from" ]; then mkdir -p ".$to"; else mkdir -p ".$(dirname "$to")" && touch ".$to"; fi
	mount --bind "$from" ".$to"
done <"$BINDS"
echo /srv/xen.so >etc/ld.so.preload
pivot_root . old
cd /
umount -l old
rmdir old
mount --make-rshared /
'''
SYSTEMD = r'''exec env -i container=p2mguard PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=boot.target --log-target=console --show-status=no
'''
# Nobody but one who buries the dead.
NOBODY = r'''exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin perl -e '$SIG{CHLD} = "IGNORE"; sleep while 1'
'''


class Fresh(Container):
    """A fresh Debian, as it is booted by systemd."""
    script = SCRIPT + SYSTEMD

    def apt(self, *arguments, check=True):
        """What it says. Nothing is downloaded: there is no network in here."""
        return self.run('env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=2', 'PREVLEVEL=N',
                        'apt-get', '-q', '-y', '-o', 'Dpkg::Use-Pty=0', *arguments, check=check, timeout=280)

    def install(self, which, *names):
        files = [f'/srv/{which}/{name}' for name in os.listdir(f'{WORK}/{which}')
                 if name.endswith('.deb') and name.split('_')[0] in names]
        if len(files) != len(names):
            raise AssertionError(f'of {names} there are {files}')
        return self.apt('install', '--no-install-recommends', *files)

    def files(self):
        """All that there is, in the root and in /run."""
        found = self.run('find', '/', '/run', '-xdev', '-not', '-type', 'd').splitlines()
        folders = self.run('find', '/etc', '/run', '/var', '-xdev', '-name', '*p2mguard*', '-type', 'd').splitlines()
        found += [path + '/' for path in folders]
        return {path for path in found if not PASSING.match(path)}


class WithoutSystemd(Fresh):
    script, first = SCRIPT + NOBODY, 'perl'

    def is_up(self):
        return True


class FreshHost(Host):
    """The daemon is a package's."""

    def start_daemon(self, wait=True):
        with open(self.log_path, 'ab'):
            pass

    def dump(self, path='/'):
        """Everything in the store, but what comes of the domains."""
        below = path.rstrip('/')
        return {below: self.store.read_or_none(path), **{key: value for name in self.store.list(path)
                                                         for key, value in self.dump(f'{below}/{name}').items()}}


NO_CONTAINER = why_none()


@unittest.skipIf(NO_CONTAINER, NO_CONTAINER)
class PackagesCase(unittest.TestCase):
    kind = Fresh

    def setUp(self):
        self.host = FreshHost()
        self.addCleanup(self.host.stop)
        units = tempfile.mkdtemp(prefix='p2mg-units-')
        self.addCleanup(shutil.rmtree, units)
        for unit in (UNIT, 'p2mguardd.socket'):
            os.makedirs(f'{units}/{unit}.d')
            with open(f'{units}/{unit}.d/test.conf', 'w', encoding='ascii') as file:
                file.write(CONDITIONS)
        self.container = self.kind(units, [(self.host.folder, '/run/xenstored'),
                                           (self.host.folder + '/machine', '/dev/xen/machine'),
                                           (WORK + '/one', '/srv/one'), (WORK + '/two', '/srv/two')])
        self.addCleanup(self.container.stop)
        self.host.control = self.container.path('/run/p2mguard/control')
        self.before = self.host.create(1, name='web', flags=HVM)

    def info(self):
        with contextlib.closing(self.host.client()) as client:
            return client.call('daemon.info')

    def hold(self, **params):
        client = self.host.client()
        session = client.call('guard.begin', domain='web', wait=True, policy=QUICK, **params)
        self.assertEqual(self.host.store.perms('/local/domain/1/memory'), 'n0')
        return client, session['session']

    def assert_held(self):
        self.assertEqual(self.host.store.perms('/local/domain/1/memory'), 'n0')
        self.assertEqual(self.host.journals(), ['1'])

    def assert_free(self, target=None):
        wanted = {} if target is None else {'target': str(target), 'max_pages': target // 4 + 256}
        self.assertEqual(self.host.snapshot(1), {**self.before, **wanted})
        self.assertEqual(self.host.journals(), [])


class Systemd(PackagesCase):
    def pid(self):
        return self.container.show(UNIT, 'MainPID')

    def await_version(self, version):
        """Of the daemon that answers; none may do so for a moment."""
        def answers():
            with contextlib.suppress(OSError, EOFError):
                return self.info()['version'] == version
        wait_until(answers, 30, f'version {version}')

    def test_install(self):
        """All four packages: the service runs, as it is installed, and what goes with it is there."""
        self.container.install('one', 'p2mguard', 'p2mguard-agent', 'libp2mguard1', 'libp2mguard-dev')
        self.assertEqual(self.container.show(UNIT, 'ActiveState', 'SubState'), ['active', 'running'])
        self.assertEqual(self.container.show('p2mguardd.socket', 'ActiveState'), 'active')
        self.assertEqual(self.container.show(UNIT, 'UnitFileState'), 'enabled')
        self.assertEqual(self.info()['version'], VERSIONS['one'])
        exe = os.readlink(f'/proc/{self.container.main_pid(UNIT)}/exe')
        self.assertEqual(exe, '/usr/sbin/p2mguardd')
        # An agent is for guests.
        self.assertEqual(self.container.show('p2mguard-agent.service', 'ActiveState', 'ConditionResult'),
                         ['inactive', 'no'])
        answer = self.container.run('p2mguardctl', 'migrate', 'web', '--', 'p2mguardctl', 'list')
        self.assertRegex(answer, r'\bweb\b')
        self.assert_free()
        self.assertEqual(self.container.run('dpkg', '--audit'), '')
        self.assertEqual(self.container.run('systemctl', 'list-units', '--failed', '--no-legend', 'p2mguard*'), '')

    def test_upgrade_while_held(self):
        """Of a connection, and a wish that comes during the upgrade; the very same process goes on."""
        self.container.install('one', 'p2mguard')
        pid = self.pid()
        client, session = self.hold(hold='connection')
        client.call('events.subscribe')
        self.host.mem_set(1, 300000)
        client.event('target.deferred')
        self.container.install('two', 'p2mguard')
        self.assertEqual(client.event('daemon.reexecuted')['version'], VERSIONS['two'])
        self.assert_held()
        self.assertEqual((self.pid(), self.info()['version']), (pid, VERSIONS['two']))
        self.assertEqual(self.container.show(UNIT, 'NRestarts', 'Result'), ['0', 'success'])
        wait_until(lambda: client.call('guard.show', session=session)['state'] == 'held', 20, 'the guest held')
        # The attempt that was under way has not been watched for a moment; the next one is.
        self.assertEqual(client.call('guard.verdict', session=session)['verdict'], 'retry')
        client.call('guard.retry', session=session)
        self.assertEqual(client.call('guard.verdict', session=session)['verdict'], 'proceed')
        self.assertRegex(self.container.run('p2mguardctl', 'list'), r'\bweb\b')
        client.call('guard.end', session=session, outcome='failed')
        self.assert_free(300000)

    def test_upgrade_of_nobody(self):
        self.container.install('one', 'p2mguard')
        self.assertEqual(self.info()['version'], VERSIONS['one'])
        self.container.install('two', 'p2mguard')
        self.await_version(VERSIONS['two'])

    def test_upgrade_killed_in_between(self):
        """The files are new, and no script has run: everything is guarded as before, and everybody thawed as before."""
        self.container.install('one', 'p2mguard')
        self.hold(hold='detached')
        two = next(name for name in os.listdir(WORK + '/two') if re.match(r'p2mguard_.*\.deb$', name))
        self.container.run('dpkg', '--unpack', '/srv/two/' + two)
        self.assert_held()
        os.kill(self.container.main_pid(UNIT), signal.SIGKILL)
        wait_until(lambda: not self.host.journals(), 20, 'its end')
        self.assert_free()
        self.await_version(VERSIONS['two'])
        self.hold(hold='detached')
        self.container.run('dpkg', '--configure', '-a')
        self.assert_held()
        self.container.ctl('stop', UNIT)
        self.assert_free()

    def test_remove_and_purge(self):
        """Whoever is held is let go first, and nothing of us is left, in the store neither."""
        files, store = self.container.files(), self.host.dump()
        self.container.install('one', 'p2mguard', 'p2mguard-agent', 'libp2mguard1', 'libp2mguard-dev')
        self.assertTrue('/etc/p2mguard/p2mguard.conf' in self.container.files())
        self.hold(hold='detached')
        self.container.apt('remove', 'p2mguard')
        self.assert_free()
        self.assertEqual(self.host.dump(), store)
        self.assertEqual(self.container.show(UNIT, 'ActiveState'), 'inactive')
        self.assertTrue(os.path.exists(self.container.path('/etc/p2mguard/p2mguard.conf')))
        self.container.apt('purge', '--autoremove', 'p2mguard', 'p2mguard-agent', 'libp2mguard1', 'libp2mguard-dev')
        self.assertEqual(sorted(self.container.files() ^ files), [])
        self.assertEqual(self.host.dump(), store)

    def test_killed_and_removed(self):
        """What a dead daemon has left is put back by the removal."""
        self.container.install('one', 'p2mguard')
        self.hold(hold='detached')
        self.container.run('mkdir', '-p', f'/etc/systemd/system/{UNIT}.d')
        self.write(f'/etc/systemd/system/{UNIT}.d/dead.conf', '[Service]\nRestart=no\nExecStopPost=\n')
        self.container.ctl('daemon-reload')
        self.container.ctl('stop', 'p2mguardd.socket', check=False)
        os.kill(self.container.main_pid(UNIT), signal.SIGKILL)
        wait_until(lambda: self.container.show(UNIT, 'ActiveState') == 'failed', 20, 'its end')
        self.assert_held()
        self.container.apt('remove', 'p2mguard')
        self.assert_free()

    def write(self, path, text):
        with open(self.container.path(path), 'w', encoding='ascii') as file:
            file.write(text)

    def test_removal_that_would_leave_somebody_frozen(self):
        """Is refused, and says what to do: somebody else has the lock, and nobody knows what he holds."""
        self.container.install('one', 'p2mguard')
        self.container.ctl('stop', 'p2mguardd.socket', UNIT)
        lock = open(self.container.path('/run/p2mguard/control.lock'), 'r+', encoding='ascii')
        self.addCleanup(lock.close)
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = self.container.run('sh', '-c', 'apt-get -q -y remove p2mguard 2>&1 || :', timeout=280)
        self.assertIn('p2mguard is not removed: guests would stay frozen. Try: p2mguardctl thaw --offline --all', said)
        self.assertIn('/usr/sbin/p2mguardd', self.container.run('dpkg', '-L', 'p2mguard'))

    def test_removal_without_xenstored(self):
        self.container.install('one', 'p2mguard')
        self.container.ctl('stop', 'p2mguardd.socket', UNIT)
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.host.xenstored.pid, signal.SIGCONT)
        said = self.container.run('sh', '-c', 'timeout 60 dpkg --remove p2mguard 2>&1', timeout=280)
        self.assertIn('WARNING: xenstored does not answer', said)


class InitScripts(PackagesCase):
    """Where there is no systemd: the package's script of sysv, and OpenRC's."""
    kind = WithoutSystemd

    def service(self, *arguments, check=True):
        return self.container.run('env', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', *self.command, *arguments, check=check)

    def status_of(self, *arguments):
        command = ['nsenter', '-t', str(self.container.pid), '-m', '-p', '-n', '--', *self.command, *arguments]
        return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_running(self):
        return self.status_of('status') == 0

    def answers(self):
        with contextlib.suppress(OSError, EOFError):
            return self.info()

    def daemon(self):
        """Its number here; 0 when there is none."""
        ours = os.readlink(f'/proc/{self.container.pid}/ns/pid')
        for entry in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                program, space = os.readlink(f'/proc/{entry}/exe'), os.readlink(f'/proc/{entry}/ns/pid')
                if program.startswith('/usr/sbin/p2mguardd') and space == ours:
                    return int(entry)
        return 0

    def configure(self, text):
        with open(self.container.path('/etc/p2mguard/p2mguard.conf'), 'w', encoding='ascii') as file:
            file.write(text)

    def live(self):
        wait_until(self.answers, 20, 'an answer')
        self.assertTrue(self.is_running())
        pid = self.daemon()
        client, session = self.hold(hold='detached')
        client.call('events.subscribe')
        self.configure('[daemon]\nmax_gap_ms = 9000\n')
        self.service('reload')
        client.event('daemon.reloaded')
        self.assert_held()
        self.assertEqual(self.daemon(), pid)
        # Killed: nobody stays frozen, and another daemon is there.
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.host.journals(), 20, 'everything put back')
        self.assert_free()
        wait_until(self.answers, 20, 'another daemon')
        # Its program is executed anew, with the guest held on.
        pid = self.daemon()
        client, _ = self.hold(hold='detached')
        client.call('events.subscribe')
        self.service('reexec')
        self.assertEqual(client.event('daemon.reexecuted')['sessions'], 1)
        self.assert_held()
        self.assertEqual(self.daemon(), pid)
        self.service('stop')
        self.assert_free()
        self.assertEqual((self.daemon(), self.is_running()), (0, False))

    def test_sysv(self):
        self.command = ['/etc/init.d/p2mguardd']
        self.container.install('one', 'p2mguard')
        self.live()
        # A configuration that it does not take: that is said, and not tried again and again.
        self.configure('[daemon]\nnonsense = 1\n')
        self.assertNotEqual(self.status_of('start'), 0)
        self.assertEqual(self.daemon(), 0)
        self.configure('')
        self.service('start')
        # Its upgrade is as under systemd.
        wait_until(self.answers, 20, 'an answer')
        self.hold(hold='detached')
        self.container.install('two', 'p2mguard')
        wait_until(lambda: (self.answers() or {}).get('version') == VERSIONS['two'], 20, 'the new version')
        self.assert_held()
        self.container.apt('purge', 'p2mguard')
        self.assert_free()
        self.assertEqual(self.daemon(), 0)
        self.assertFalse(os.path.exists(self.container.path('/run/p2mguard')))

    def test_openrc(self):
        self.container.apt('install', '--no-install-recommends', 'openrc')
        self.container.install('one', 'p2mguard')
        self.container.run('/etc/init.d/p2mguardd', 'stop', check=False)
        with open(f'{WORK}/openrc', encoding='utf-8') as file:
            text = file.read()
        with open(self.container.path('/etc/init.d/p2mguardd'), 'w', encoding='utf-8') as file:
            file.write(text)
        self.container.run('sh', '-c', 'mkdir -p /run/openrc && touch /run/openrc/softlevel')
        self.command = ['rc-service', '--nodeps', 'p2mguardd']
        self.service('start')
        self.live()


if __name__ == '__main__':
    unittest.main()
