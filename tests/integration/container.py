# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd in namespaces of its own, on a root of its own that is made of this machine's /usr: what it takes to start a unit.

Needs root, cgroup 2, and nothing that is not on the machine. Everything is gone with the process.
"""
import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

SCRIPT = r'''
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cd "$ROOT"
mkdir -p usr etc/systemd/system etc/p2mguard proc sys dev/pts dev/shm dev/xen run var/tmp tmp root home srv old
mount --rbind -o ro /usr usr
mount -o remount,bind,ro usr
for name in bin sbin lib lib32 lib64 libx32; do [ ! -L "/$name" ] || ln -s "$(readlink "/$name")" "$name"; done
for name in passwd group ld.so.cache ld.so.conf; do cp "/etc/$name" etc; done
echo 11111111111111111111111111111111 >etc/machine-id
touch home/secret
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/pts dev/shm dev/xen
for name in null zero full random urandom tty ptmx; do touch "dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
touch dev/console && mount --bind "$CONSOLE" dev/console
mount -t tmpfs -o mode=755 tmpfs run
cp -r "$UNITS/." etc/systemd/system/
while read -r from to; do
	if [ -d "$from" ]; then mkdir -p ".$to"; else mkdir -p ".$(dirname "$to")" && touch ".$to"; fi
	mount --bind "$from" ".$to"
done <"$BINDS"
pivot_root . old
cd /
umount -l old
rmdir old
# As systemd does where it is not in a container: what is mounted here is seen in the services' own namespaces.
mount --make-rshared /
exec env -i container=p2mguard PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=boot.target --log-target=console --show-status=no
'''


def why_none():
    """None when there can be a container here; else the reason."""
    if os.geteuid() != 0:
        return 'namespaces take root'
    if not os.path.exists('/lib/systemd/systemd'):
        return 'there is no systemd on this machine'
    done = subprocess.run(['unshare', '--mount', '--pid', '--cgroup', '--uts', '--ipc', '--net', '--fork', 'true'],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return done.stderr.strip()
    folder = cgroup_root()
    return None if folder and os.access(folder, os.W_OK) else 'there is no cgroup2 that can be written to'


def cgroup_root():
    with open('/proc/self/mountinfo', encoding='utf-8') as file:
        roots = [line.split()[4] for line in file if ' - cgroup2 ' in line]
    return roots[0] if roots else None


class Container:
    """`units` is a folder of units; `binds` are pairs of a path here and one in the container."""
    script, first = SCRIPT, 'systemd'

    def __init__(self, units, binds):
        self.folder = tempfile.mkdtemp(prefix='p2mg-units-')
        self.said = ''
        self.process = None
        self.pid = 0
        self.cgroup = self.make_cgroup()
        for name in ('root', 'units'):
            os.mkdir(f'{self.folder}/{name}')
        shutil.copytree(units, self.folder + '/units', dirs_exist_ok=True)
        with open(self.folder + '/units/boot.target', 'w', encoding='ascii') as file:
            file.write('[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n')
        with open(self.folder + '/binds', 'w', encoding='ascii') as file:
            file.writelines(f'{one} {other}\n' for one, other in binds)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def make_cgroup(self):
        """One of our own: systemd wants what it finds at its root to be its own."""
        path = f'{cgroup_root()}/{os.path.basename(self.folder)}'
        os.mkdir(path)
        return path

    def start(self):
        master, slave = pty.openpty()
        environment = dict(os.environ, CONSOLE=os.ttyname(slave), ROOT=self.folder + '/root',
                           UNITS=self.folder + '/units', BINDS=self.folder + '/binds')
        def enter():
            with open(self.cgroup + '/cgroup.procs', 'w', encoding='ascii') as file:
                file.write(str(os.getpid()))
        command = ['unshare', '--mount', '--pid', '--cgroup', '--uts', '--ipc', '--net', '--fork', '--kill-child',
                   'sh', '-c', self.script]
        with open(self.folder + '/setup.log', 'wb') as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=enter)
        os.close(slave)
        threading.Thread(target=self.listen, args=(master,), daemon=True).start()
        end = time.monotonic() + 60
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.folder + '/setup.log', encoding='utf-8', errors='replace') as log:
                    raise OSError(f'systemd does not start here: {log.read()}\n{self.said}')
            self.pid = self.pid or self.find_child()
            if self.pid and self.is_up():
                return
            time.sleep(0.05)

    def is_up(self):
        return self.ctl('is-system-running', check=False).strip() in ('running', 'degraded')

    def listen(self, master):
        with contextlib.suppress(OSError):
            while True:
                self.said += os.read(master, 65536).decode(errors='replace').replace('\r', '')

    def find_child(self):
        with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children', encoding='ascii') as file:
            children = file.read().split()
        if not children:
            return 0
        with open(f'/proc/{children[0]}/comm', encoding='ascii') as file:
            return int(children[0]) if file.read() == self.first + '\n' else 0

    def path(self, path):
        """A path in the container, as it is seen from here."""
        return f'/proc/{self.pid}/root{path}'

    def run(self, *command, check=True, timeout=60):
        done = subprocess.run(['nsenter', '-t', str(self.pid), '-m', '-p', '-u', '-i', '-n', '--', *command],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout, check=False)
        if check and done.returncode:
            raise AssertionError(f'{command} ended with {done.returncode}: {done.stderr}{done.stdout}\n{self.said}')
        return done.stdout

    def ctl(self, *arguments, check=True):
        return self.run('systemctl', *arguments, check=check)

    def show(self, unit, *names):
        """Properties of a unit; one as it is, several as a list."""
        lines = self.ctl('show', unit, '-p', ','.join(names)).splitlines()
        values = dict(line.split('=', 1) for line in lines)
        return values[names[0]] if len(names) == 1 else [values[name] for name in names]

    def main_pid(self, unit):
        """As it is numbered here; 0 when there is none."""
        inner = self.show(unit, 'MainPID')
        if inner == '0':
            return 0
        for entry in os.listdir('/proc'):
            if entry.isdigit():
                with contextlib.suppress(OSError), open(f'/proc/{entry}/status', encoding='ascii') as file:
                    numbers = re.search(r'^NSpid:\t(.*)$', file.read(), re.M)[1].split()
                    if numbers[-1] == inner and os.readlink(f'/proc/{entry}/ns/pid') == os.readlink(
                            f'/proc/{self.pid}/ns/pid'):
                        return int(entry)
        return 0

    def journal(self, *match):
        self.run('journalctl', '--sync', check=False)
        return self.run('journalctl', '-q', '--no-pager', '-o', 'json', *match, check=False)

    def stop(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                if self.pid:
                    os.kill(self.pid, signal.SIGKILL)  # the first of its namespace: all of them end
            self.process.kill()
            self.process.wait()
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            end = time.monotonic() + 10
            while time.monotonic() < end:
                try:
                    os.rmdir(folder)
                    break
                except OSError:
                    time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)
