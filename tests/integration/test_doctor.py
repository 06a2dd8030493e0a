# SPDX-License-Identifier: LGPL-2.1-or-later
"""p2mguardctl doctor: each set-up that is broken on purpose is found, and the remedy is the right one.

The hypervisor is imitated, and files such as /proc/xen/capabilities stand below a folder of the test's. xenstored, the
daemon, its guests' nodes and the programs that remedies name are real.
"""
import errno
import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import unittest

from fixture import BUILD, HVM, KIND, NOBODY, PAUSED, SESSIONS, Client, become
from proxy import WRITE
from test_guard import GuardCase

FAILED, USAGE = 1, 2
NO_PV, NO_HAP, NO_SHADOW = 1, 4, 8  # machine.h
CONF = '/etc/p2mguard/p2mguard.conf'
REAL = '/usr/lib/xen-4.17/bin/libxl-save-helper'
GOOD_UNIT = {'LoadState': 'loaded', 'ActiveState': 'active', 'UnitFileState': 'enabled', 'WatchdogUSec': '30s'}
SYSTEMCTL = '''#!/bin/sh
# the answers of systemd, as "systemctl show --property=... UNIT" writes them
exec cat "${0%/*}/$3"
'''


class DoctorCase(GuardCase):
    def setUp(self):
        super().setUp()
        self.root = self.host.folder + '/root'
        self.bin = self.host.folder + '/bin'
        os.makedirs(self.bin)
        os.symlink(BUILD + '/p2mguardctl', self.bin + '/p2mguardctl')
        self.put('/proc/xen/capabilities', 'control_d\n')
        self.put('/dev/xen/privcmd')
        self.helper = self.installed_helper()
        self.put(self.helper, '#!/bin/sh\n', 0o755)
        self.put(REAL, '#!/bin/sh\n', 0o755)
        self.put(CONF, '')
        os.unlink(self.root + CONF)
        os.symlink(self.host.folder + '/p2mguard.conf', self.root + CONF)
        doctor = self.host.folder + '/doctor'  # which looks at this host alone
        with open(doctor, 'w', encoding='utf-8') as file:
            file.write(f'#!/bin/sh\nexec {BUILD}/doctor-imitated --root {self.root} "$@"\n')
        os.chmod(doctor, 0o755)
        self.environment = dict(self.host.environment, P2MGUARD_DOCTOR=doctor,
                                P2MGUARD_THAW=BUILD + '/thaw-imitated', PATH=f'{self.bin}:{os.environ["PATH"]}',
                                LIBXL_SAVE_HELPER=self.helper)
        for name in ('P2MGUARD_REAL_SAVE_HELPER', 'P2MGUARD_SAVE_POLICY'):
            self.environment.pop(name, None)
        self.show_process(self.host.daemon.pid)

    def put(self, path, content='', mode=0o644):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        with open(self.root + path, 'w', encoding='utf-8') as file:
            file.write(content)
        os.chmod(self.root + path, mode)

    def show_process(self, pid):
        os.symlink(f'/proc/{pid}', f'{self.root}/proc/{pid}')

    def installed_helper(self):
        """Where "make install" puts it, which is configure's choice."""
        out = subprocess.run([BUILD + '/doctor-imitated', '--root', self.root, '--json'], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, env=self.host.environment, check=False).stdout
        found = {one['check']: one['found'] for one in json.loads(out)}['save-helper']
        return re.search(r'/\S+/save-helper', found)[0]

    def use_systemd(self, unit=None, **others):
        """A systemd that says so of its units; those that it does not know are not found."""
        os.makedirs(self.root + '/run/systemd/system', exist_ok=True)
        with open(self.bin + '/systemctl', 'w', encoding='utf-8') as file:
            file.write(SYSTEMCTL)
        os.chmod(self.bin + '/systemctl', 0o755)
        units = {'libvirtd': {'LoadState': 'not-found'}, 'virtxend': {'LoadState': 'not-found'},
                 'p2mguardd': {**GOOD_UNIT, **(unit or {})}, **others}
        for name, properties in units.items():
            with open(f'{self.bin}/{name}.service', 'w', encoding='utf-8') as file:
                file.writelines(f'{key}={value}\n' for key, value in properties.items())

    def run_doctor(self, *arguments, json_too=True, **more):
        command = ['p2mguardctl', '--socket', self.host.control] + ['--json'] * json_too
        process = subprocess.run([*command, 'doctor', *arguments], env=self.environment,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 timeout=120, check=False, executable=BUILD + '/p2mguardctl', **more)
        for sign in ('AddressSanitizer', 'runtime error', 'LeakSanitizer'):
            self.assertNotIn(sign, process.stderr)
        return process

    def examine(self, *arguments, **more):
        process = self.run_doctor(*arguments, **more)
        findings = {one.pop('check'): one for one in json.loads(process.stdout)}
        failed = [name for name, one in findings.items() if one['status'] == 'failed']
        self.assertEqual(process.returncode, FAILED if failed else 0, process.stderr)
        for name, one in findings.items():
            self.assertIn(one['status'], ('ok', 'warning', 'failed', 'skipped'))
            self.assertTrue(one['found'], name)
            self.assertEqual(bool(one['remedy']), one['status'] in ('warning', 'failed'), name)
        return findings

    def assert_found(self, check, found, remedy, status='failed', arguments=(), alone=True, **more):
        """What is found, and how it is to be mended; with `alone` all else is fine, or cannot be told."""
        findings = self.examine(*arguments, **more)
        one = findings[check]
        self.assertEqual(one['status'], status, one)
        self.assertIn(found, one['found'])
        self.assertIn(remedy, one['remedy'])
        if alone:
            others = {name: other for name, other in findings.items() if other['status'] not in ('ok', 'skipped')}
            self.assertEqual(list(others), [check], others)
        return one

    def assert_mended(self, check, *arguments):
        one = self.examine(*arguments)[check]
        self.assertEqual(one['status'], 'ok', one)

    def apply(self, remedy):
        """Types it in, with p2mguardctl, xenstore's programs and the shell as they are."""
        self.assertNotIn('/usr/', remedy.replace(self.root + '/usr/', ''))  # this machine's own files are not meant
        subprocess.run(['sh', '-ec', remedy], env=self.environment, stdin=subprocess.DEVNULL, timeout=60, check=True)


class Healthy(DoctorCase):
    def test_nothing_is_wrong_with_a_host_that_is_right(self):
        self.use_systemd()
        self.host.create(1, generation=2)
        self.host.create(2, flags=HVM, offset_kib=8192)
        self.client.hold(2)
        held = self.host.snapshot(2)
        findings = self.examine()
        self.assertEqual([name for name, one in findings.items() if one['status'] != 'ok'], ['libvirt'])
        self.assertEqual(findings['libvirt']['found'], 'neither libvirtd nor virtxend is here')
        self.assertEqual(findings['libvirt']['status'], 'skipped')
        self.assertEqual(list(findings), self.documented())
        self.assertIn('oxenstored' if KIND == 'ox' else 'the C xenstored', findings['xenstored']['found'])
        self.assertIn('2 guests', findings['guests']['found'])
        self.assertEqual(self.examine('--domain', 'guest1')['guests']['found'], 'domain 1 (guest1) is a PV guest')
        # It has changed nothing.
        self.assertIsNone(self.host.store.read_or_none('/tool/p2mguard/doctor'))
        self.assertEqual(self.host.snapshot(2), held)
        self.assertEqual(self.host.journals(), ['2'])

    @staticmethod
    def documented():
        """The names of the checks that p2mguardctl(8) has."""
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, '../../man/p2mguardctl.8'), encoding='utf-8') as file:
            table = file.read().split('.\\" checks\n')[1].split('.El')[0]
        return re.findall(r'^\.It Cm (\S+) Ta', table, flags=re.M)

    def test_written_for_people(self):
        os.unlink(self.root + '/dev/xen/privcmd')
        process = self.run_doctor(json_too=False)
        self.assertEqual(process.returncode, FAILED)
        lines = process.stdout.splitlines()
        self.assertRegex(lines[0], r'^ok +dom0 +this is dom0$')
        at = next(i for i, line in enumerate(lines) if line.startswith('FAILED'))
        self.assertRegex(lines[at], r'^FAILED +privcmd +/dev/xen/privcmd: No such file or directory$')
        self.assertRegex(lines[at + 1], r'^ +to mend it: +modprobe xen-privcmd$')
        self.assertRegex(lines[-1], r'^\d+ ok, 0 warnings, 1 failed, \d+ skipped$')
        self.assertNotIn('\033', process.stdout)
        for arguments in (['--domain'], ['--nonsense'], ['web']):
            self.assertEqual(self.run_doctor(*arguments).returncode, USAGE)

    def on_terminal(self, **variables):
        ours, theirs = pty.openpty()
        command = [BUILD + '/p2mguardctl', '--socket', self.host.control, 'doctor']
        text = b''
        with subprocess.Popen(command, env={**self.environment, **variables}, stdin=theirs, stdout=theirs,
                              stderr=theirs) as process:
            os.close(theirs)
            try:
                while more := os.read(ours, 65536):
                    text += more
            except OSError as error:
                self.assertEqual(error.errno, errno.EIO)  # nobody writes there any more
            os.close(ours)
            process.wait(60)
        return text

    def test_colours_on_a_terminal_alone(self):
        os.unlink(self.root + '/dev/xen/privcmd')
        self.assertIn(b'\033[1;31mFAILED', self.on_terminal(TERM='xterm', NO_COLOR=''))
        for variables in ({'TERM': 'xterm', 'NO_COLOR': '1'}, {'TERM': 'dumb', 'NO_COLOR': ''}):
            text = self.on_terminal(**variables)
            self.assertIn(b'FAILED', text)
            self.assertNotIn(b'\033', text)


class BrokenXen(DoctorCase):
    def test_no_xen(self):
        os.unlink(self.root + '/proc/xen/capabilities')
        self.assert_found('dom0', 'no Xen below this system', 'boot Xen')
        self.put('/proc/xen/capabilities', '')
        self.assert_found('dom0', 'this is a guest of Xen', 'run p2mguard in dom0')

    def test_no_privcmd(self):
        os.unlink(self.root + '/dev/xen/privcmd')
        self.assert_found('privcmd', '/dev/xen/privcmd', 'modprobe xen-privcmd')

    def test_hypervisor_cannot_be_reached(self):
        self.environment['P2MGUARD_IMITATED_MACHINE'] = self.host.folder + '/nowhere'
        self.assert_found('hypervisor', 'no hypercall can be made', 'modprobe xen-privcmd')

    def test_wrong_interface_version(self):
        self.host.machine.set_host(version=4 << 16 | 20, error=errno.EACCES)
        one = self.assert_found('hypervisor', 'Xen 4.20 refuses', 'built for Xen 4.20', alone=False)
        self.assertIn('another interface version', one['found'])

    def test_old_xen(self):
        self.host.machine.set_host(version=4 << 16 | 14)
        self.assert_found('xen-version', 'Xen 4.14 is older', 'install a newer Xen', 'warning', alone=False)

    def test_nothing_that_sees_what_a_guest_writes(self):
        self.host.machine.set_host(lacks=NO_SHADOW)
        self.assert_found('log-dirty', 'PV guests cannot be migrated live', 'CONFIG_SHADOW_PAGING', 'warning')
        self.host.create(1, flags=HVM)
        self.assert_found('log-dirty', 'PV guests cannot be migrated live (here: 0)', 'CONFIG_SHADOW_PAGING', 'warning')
        self.host.create(2)
        self.assert_found('log-dirty', 'PV guests cannot be migrated live (here: 1)', 'CONFIG_SHADOW_PAGING')
        self.host.machine.set_host(lacks=NO_SHADOW | NO_HAP)
        self.assert_found('log-dirty', 'neither HAP nor shadow paging', 'EPT or NPT')
        self.host.machine.set_host(lacks=NO_SHADOW | NO_PV)
        self.host.destroy(2)
        self.assert_mended('log-dirty')


class BrokenStore(DoctorCase):
    def test_no_xenstored(self):
        self.host.stop_daemon()
        self.host.xenstored.kill()
        self.host.xenstored.wait()
        self.assert_found('xenstored', 'nobody answers on ' + self.host.store_path, 'systemctl start xenstored.service',
                          alone=False)
        self.host.restart_xenstored()
        self.assert_mended('xenstored')

    def test_xenstored_that_hangs(self):
        self.host.xenstored.send_signal(signal.SIGSTOP)
        one = self.assert_found('xenstored', 'does not answer', 'kill -CONT', alone=False)
        self.assertIn(self.host.store_path, one['found'])
        self.apply(f'kill -CONT {self.host.xenstored.pid}')
        self.assert_mended('xenstored')

    def test_permissions_are_off(self):
        path = '/etc/xen/oxenstored.conf'
        self.put(path, '# perms-activate = false\nperms-activate = true\n')
        self.assert_mended('store-permissions')
        self.put(path, 'quota-activate = true\nperms-activate=false\n')
        self.assert_found('store-permissions', 'guests can read targets that are hidden', 'perms-activate = true')

    def test_node_cannot_be_written(self):
        proxy = self.put_proxy_between()
        self.show_process(self.host.daemon.pid)
        self.environment['XENSTORED_PATH'] = proxy.path
        proxy.refuse = lambda kind, path: 'ENOSPC' if kind == WRITE and path.endswith('/doctor') else None
        self.assert_found('store-write', 'No space left on device', 'XENSTORED_PATH')
        proxy.refuse = lambda kind, path: None
        self.assert_mended('store-write')


class BrokenDaemon(DoctorCase):
    def test_no_daemon(self):
        self.host.stop_daemon()
        self.assert_found('daemon', 'nobody answers on ' + self.host.control, 'systemctl start p2mguardd.service')
        self.host.start_daemon()
        self.assert_mended('daemon')

    def test_daemon_that_hangs(self):
        self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.daemon.send_signal(signal.SIGSTOP)
        self.assert_found('daemon', 'daemon.info failed: Connection timed out', 'systemctl restart p2mguardd.service',
                          alone=False)
        one = self.examine()['journals']
        self.assertIn('or hangs', one['found'])
        self.assertTrue(one['remedy'].endswith('thaw --offline --force --all'))
        self.host.kill_daemon()

    def test_daemon_of_another_version(self):
        """The real one's answer, with another number in it."""
        os.rename(self.host.control, self.host.control + '.real')
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.host.control)
        listener.listen()
        def answer():
            one, _ = listener.accept()
            real = Client(self.host.control + '.real')
            with one:
                real.socket.sendall(one.recv(4096))
                reply = real.line(30)
                reply['result']['version'] = '9.9'
                one.sendall(json.dumps(reply).encode() + b'\n')
                one.recv(1)
            real.close()
        thread = threading.Thread(target=answer)
        thread.start()
        one = self.assert_found('daemon-version', 'p2mguardd is 9.9', 'systemctl restart p2mguardd.service', 'warning')
        thread.join()
        self.assertIn('p2mguardctl is ', one['found'])

    def test_broken_configuration(self):
        with open(self.host.folder + '/p2mguard.conf', 'a', encoding='utf-8') as file:
            file.write('[policy]\nattempts = many\n')
        one = self.assert_found('configuration', "attempts is 'many', expected a number", CONF)
        self.assertIn('p2mguard.conf:4:', one['found'])
        os.unlink(self.root + CONF)
        self.assert_mended('configuration')  # there need be none, but for whoever names one
        self.assert_found('configuration', 'No such file', 'leave out --config', arguments=['--config', CONF])

    def test_low_limit_of_open_files(self):
        resource.prlimit(self.host.daemon.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        self.assert_found('open-files', 'may open 1024 files', 'LimitNOFILE=10496', 'warning')
        with open(self.host.folder + '/p2mguard.conf', 'a', encoding='utf-8') as file:
            file.write('max_connections = 184\nmax_sessions = 200\n')
        self.assert_mended('open-files')

    def test_unit(self):
        enable = 'systemctl enable --now p2mguardd.service'
        for unit, found, remedy, status in (
                ({'UnitFileState': 'disabled'}, 'active, and disabled', enable, 'warning'),
                ({'ActiveState': 'inactive'}, 'inactive, and enabled', enable, 'warning'),
                ({'ActiveState': 'failed'}, 'has failed', 'journalctl -u p2mguardd.service', 'failed'),
                ({'LoadState': 'masked'}, 'is masked', 'systemctl unmask p2mguardd.service', 'failed'),
                ({'LoadState': 'not-found'}, 'not-found', 'systemctl daemon-reload', 'warning'),
                ({'WatchdogUSec': '0'}, 'no watchdog', 'WatchdogSec=30s', 'warning')):
            with self.subTest(unit):
                self.use_systemd(unit)
                self.assert_found('unit', found, remedy, status)

    def test_journal_that_was_left(self):
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        one = self.assert_found('journals', 'guests held (1)', 'thaw --offline --all', alone=False)
        self.apply(one['remedy'])
        self.assert_mended('journals')
        self.assertEqual(self.host.snapshot(1), before)

    def test_journal_of_another_version(self):
        self.host.create(1)
        self.host.store.write(f'{SESSIONS}/1/restore', 'version 9\n')
        self.assert_found('journals', f'{SESSIONS}/1/restore is not a journal', f'xenstore-rm {SESSIONS}/1')


@unittest.skipIf(os.geteuid() != 0, 'becoming another user takes root')
class BrokenPermission(DoctorCase):
    configuration = '[daemon]\nmax_gap_ms = 10000\nsocket_mode = 0660\n'

    def as_nobody(self):
        os.chmod(self.host.folder, 0o755)
        return {'preexec_fn': become}

    def test_socket_is_for_others(self):
        if not self.reachable():
            self.skipTest(f'another user cannot start what is in {BUILD}')
        one = self.assert_found('permission', 'may not use the control socket', 'usermod -aG GROUP nobody',
                                **self.as_nobody())
        self.assertIn('socket_group', one['remedy'])
        # Root alone may ask Xen and xenstored; that is no failure.
        findings = self.examine(**self.as_nobody())
        for check in ('hypervisor', 'xenstored', 'targets', 'daemon'):
            self.assertEqual(findings[check]['status'], 'skipped', check)

    def test_socket_is_for_reading(self):
        if not self.reachable():
            self.skipTest(f'another user cannot start what is in {BUILD}')
        os.chmod(self.host.control, 0o666)
        self.assert_found('permission', 'may not hold them', 'usermod -aG GROUP nobody', **self.as_nobody())
        self.assert_mended('permission')  # for root

    @staticmethod
    def reachable():
        command = ['test', '-x', BUILD + '/doctor-imitated']
        return subprocess.run(command, preexec_fn=become, check=False).returncode == 0


class BrokenHelper(DoctorCase):
    def below_root(self, remedy):
        return remedy.replace(' /usr', f' {self.root}/usr')

    def test_helper_is_missing(self):
        os.unlink(self.root + self.helper)
        del self.environment['LIBXL_SAVE_HELPER']
        self.assert_found('save-helper', self.helper, 'apt install --reinstall p2mguard')

    def test_helper_cannot_be_executed(self):
        os.chmod(self.root + self.helper, 0o644)
        del self.environment['LIBXL_SAVE_HELPER']
        one = self.assert_found('save-helper', 'Permission denied', 'chmod 755 ' + self.helper)
        self.apply(one['remedy'].replace(' /', f' {self.root}/'))
        self.assert_mended('save-helper')

    def test_libxls_helper_is_missing(self):
        os.unlink(self.root + REAL)
        self.assert_found('libxl-helper', 'was not found', 'apt install xen-utils-4.17')
        self.put('/usr/libexec/xen/bin/libxl-save-helper', '', 0o644)
        one = self.assert_found('libxl-helper', 'Permission denied', 'chmod 755 /usr/libexec/xen/bin/libxl-save-helper')
        self.apply(self.below_root(one['remedy']))
        self.assert_mended('libxl-helper')

    def test_variable_points_nowhere(self):
        self.environment['LIBXL_SAVE_HELPER'] = '/usr/lib/gone'
        one = self.assert_found('environment', '/usr/lib/gone: No such file', f'export LIBXL_SAVE_HELPER={self.helper}')
        # Typed into the same shell, and asked again.
        again = subprocess.run(['sh', '-ec', one['remedy'] + f'\np2mguardctl --json doctor'],
                               env=self.environment, stdout=subprocess.PIPE, check=False)
        self.assertEqual([one['status'] for one in json.loads(again.stdout) if one['check'] == 'environment'], ['ok'])

    def test_variable_names_what_cannot_be_executed(self):
        self.environment['LIBXL_SAVE_HELPER'] = "/usr/lib/it's here"
        self.put("/usr/lib/it's here")
        one = self.assert_found('environment', 'Permission denied', "chmod 755 '/usr/lib/it'\\''s here'")
        self.apply(one['remedy'].replace("'/usr", f"'{self.root}/usr"))
        self.assert_found('environment', "is /usr/lib/it's here, which is not p2mguard's", 'export LIBXL_SAVE_HELPER=',
                          'warning')

    def test_other_variables(self):
        self.environment['P2MGUARD_SAVE_POLICY'] = 'strickt'
        self.assert_found('environment', "P2MGUARD_SAVE_POLICY of this shell is 'strickt'", 'strict or permissive')
        self.environment['P2MGUARD_REAL_SAVE_HELPER'] = '/usr/lib/gone'
        self.assert_found('environment', 'P2MGUARD_REAL_SAVE_HELPER of this shell', "libxl's own save helper")

    def start_libvirtd(self, **variables):
        program = self.host.folder + '/libvirtd'
        if not os.path.exists(program):
            shutil.copy('/bin/sleep', program)
        process = subprocess.Popen([program, '600'], env=variables)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        pid = process.pid
        # Beside what is real, room for what this kernel does not have.
        os.mkdir(f'{self.root}/proc/{pid}')
        for name in ('comm', 'environ'):
            os.symlink(f'/proc/{pid}/{name}', f'{self.root}/proc/{pid}/{name}')
        return pid

    def forget_libvirtd(self, pid):
        shutil.rmtree(f'{self.root}/proc/{pid}')

    def test_libvirtd(self):
        pid = self.start_libvirtd(PATH='/bin')
        one = self.assert_found('libvirt', f'libvirtd (process {pid}) has no LIBXL_SAVE_HELPER',
                                '/etc/systemd/system/libvirtd.service.d/p2mguard.conf', 'warning')
        self.assertIn('libvirtd-p2mguard.conf', one['remedy'])
        self.forget_libvirtd(pid)
        pid = self.start_libvirtd(A='x', LIBXL_SAVE_HELPER='/usr/lib/gone')
        self.assert_found('libvirt', f'of libvirtd (process {pid}) fails every migration, /usr/lib/gone',
                          'systemctl restart libvirtd')
        self.forget_libvirtd(pid)
        pid = self.start_libvirtd(LIBXL_SAVE_HELPER=self.helper)
        self.assert_mended('libvirt')
        self.put(f'/proc/{pid}/attr/current', 'libvirtd (enforce)\n')
        one = self.assert_found('libvirt', "AppArmor's profile of libvirtd", 'apparmor_parser -r')
        self.assertIn(f"echo '{self.helper} PUx,' >>/etc/apparmor.d/local/usr.sbin.libvirtd && ", one['remedy'])
        self.put('/etc/apparmor.d/local/usr.sbin.libvirtd', self.helper + ' PUx,\n')
        self.assert_mended('libvirt')

    def test_libvirtd_that_does_not_run(self):
        self.use_systemd(virtxend={'LoadState': 'loaded', 'Environment': 'A=b "C=d e"'})
        self.assert_found('libvirt', 'virtxend.service has no LIBXL_SAVE_HELPER', 'virtxend.service.d/p2mguard.conf',
                          'warning')
        self.use_systemd(libvirtd={'LoadState': 'loaded', 'Environment': 'A=b LIBXL_SAVE_HELPER=/usr/lib/gone C=d'})
        self.assert_found('libvirt', 'libvirtd.service fails every migration, /usr/lib/gone:', 'libvirtd.service.d/')
        self.use_systemd(libvirtd={'LoadState': 'loaded', 'Environment': 'LIBXL_SAVE_HELPER=' + self.helper})
        self.assert_mended('libvirt')


class BrokenGuest(DoctorCase):
    def test_no_target(self):
        before = self.host.create(3, name='web')
        self.host.create(4)
        self.host.store.remove('/local/domain/3/memory/target')
        self.assert_found('targets', 'domain 3 (web) has no memory/target', 'xenstore-write', 'warning')
        self.assertEqual(self.examine('--domain', '4')['targets']['status'], 'ok')
        one = self.assert_found('targets', 'domain 3 (web)', 'xenstore-write /local/domain/3/memory/target 262144',
                                arguments=['--domain', 'web'])
        self.apply(one['remedy'])
        self.assert_mended('targets', '--domain', '3')
        self.assertEqual(self.host.snapshot(3), before)

    def test_gate_that_nobody_keeps(self):
        before = self.host.create(3)
        for node in ('memory', 'memory/target'):
            self.host.store.set_perms('/local/domain/3/' + node, 'n0')
        one = self.assert_found('gates', 'domain 3 (guest3) may not read its target', 'xenstore-chmod')
        self.apply(one['remedy'])
        self.assert_mended('gates')
        self.assertEqual(self.host.snapshot(3), before)

    def test_guest_that_owns_its_memory_nodes(self):
        self.host.create(3)
        self.host.store.set_perms('/local/domain/3/memory', 'n3,r0')
        one = self.assert_found('gates', 'owns its memory nodes', 'xenstore-chmod', 'warning')
        self.apply(one['remedy'])
        self.assert_mended('gates')

    def test_target_that_cannot_be_reached(self):
        for domid in (3, 4, 5):
            self.host.create(domid, guest=False)
        for domid in (3, 5):
            self.host.store.write(f'/local/domain/{domid}/memory/target', '524288')
        one = self.assert_found('sizes', 'a target of 524288 KiB and a max_pages of 263168 KiB', 'xl mem-set 3 524288k',
                                'warning')
        self.assertIn('(and 1 more)', one['found'])
        self.host.mem_set(3, 524288)  # what that does
        self.assert_mended('sizes', '--domain', '3')

    def test_p2m_cannot_be_read(self):
        self.host.create(3, generation=2)
        self.assert_mended('p2m')
        self.host.machine.set(3, 'shared_info_frame', 40000)
        self.assert_found('p2m', 'its shared info page cannot be read', 'xl getenforce', 'warning')
        self.assert_found('p2m', 'domain 3', 'xl dmesg', arguments=['--domain', '3'])

    def say(self, domid, **nodes):
        for name, text in nodes.items():
            self.host.store.write(f'/local/domain/{domid}/data/p2mguard/{name}', text)

    def test_agents(self):
        self.host.create(3, name='web')
        self.say(3, features='protocol=1 balloon version=0.1.0')
        self.assertEqual(self.examine()['agents'], {'status': 'ok', 'found': '1 of 1 guests have one', 'remedy': None})
        self.say(3, features='protocol=2 balloon version=9')
        self.assert_found('agents', 'domain 3 (web): its agent speaks protocol 2, this host 1',
                          'newer p2mguard on this host', 'warning')
        self.say(3, features='protocol=1 protocol=0')
        self.assert_found('agents', 'cannot be understood', 'systemctl restart p2mguard-agent.service', 'warning')
        self.say(3, features='protocol=1', state='refused 7 no balloon driver')
        self.assert_found('agents', 'refused to freeze it: no balloon driver', 'p2mguard-agent(8)', 'warning')
        self.say(3, state='frozen 7')
        self.assert_found('agents', 'says that it is frozen, and nobody asks',
                          'systemctl restart p2mguard-agent.service', 'warning')
        self.host.store.write('/local/domain/3/control/p2mguard', 'freeze 7 10')
        self.assert_mended('agents')

    def test_agent_that_the_policy_requires(self):
        with open(self.host.folder + '/p2mguard.conf', 'a', encoding='utf-8') as file:
            file.write('[policy]\nrequire = agent\n')
        self.host.create(3)
        self.assert_found('agents', 'has no agent, and the policy requires one', 'install p2mguard-agent', 'warning')
        self.assert_found('agents', 'domain 3', 'require = settled', arguments=['--domain', '3'])

    def test_which_guest(self):
        self.host.create(3, flags=PAUSED)
        self.assert_mended('guests')
        self.assert_found('guests', 'paused', 'xl unpause 3', 'warning', ['--domain', self.host.domains[3].upper()])
        self.assert_found('guests', "there is no domain 'wbe'", 'xl list', arguments=['--domain', 'wbe'])
