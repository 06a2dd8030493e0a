# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host without Xen: the real xenstored, guests that balloon, the daemon with an imitated hypervisor.

Environment: P2MGUARD_BUILD is the build folder; P2MGUARD_XENSTORED is c or ox.
"""
import json
import mmap
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from layout import Layout

BUILD = os.environ.get('P2MGUARD_BUILD', 'build')
KIND = os.environ.get('P2MGUARD_XENSTORED', 'c')
XEN_BIN = '/usr/lib/xen-4.17/bin'
SESSIONS = '/tool/p2mguard/session'
# A machine that runs many tests at once stands still for longer than a host may.
PATIENCE = 'max_gap_ms = 10000\n'
PATIENT = '[daemon]\n' + PATIENCE
QUICK = {'quiet_ms': 50, 'settle_ms': 100, 'rest_ms': 0}

DYING, PAUSED, SHUTDOWN, SUSPENDED, HVM = 1, 2, 4, 8, 16


def wait_until(condition, timeout=40, what='condition'):
    """For what no event tells of."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'{what} did not come true within {timeout} s')
        time.sleep(0.002)


class StoreError(Exception):
    pass


class Store:
    """dom0's connection to xenstored, speaking the wire protocol (xen/io/xs_wire.h)."""
    TYPES = {'DIRECTORY': 1, 'READ': 2, 'GET_PERMS': 3, 'TRANSACTION_START': 6, 'TRANSACTION_END': 7, 'INTRODUCE': 8,
             'RELEASE': 9, 'WRITE': 11, 'MKDIR': 12, 'RM': 13, 'SET_PERMS': 14}

    def __init__(self, path):
        self.lock = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def close(self):
        self.socket.close()

    def _receive(self, length):
        data = b''
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise StoreError('EOF')
            data += more
        return data

    def request(self, kind, *texts, value=b'', txn=0):
        payload = b''.join(text.encode() + b'\0' for text in texts) + value
        with self.lock:
            self.socket.sendall(struct.pack('<IIII', self.TYPES[kind], 0, txn, len(payload)) + payload)
            reply, _, _, length = struct.unpack('<IIII', self._receive(16))
            body = self._receive(length)
        if reply == 16:
            raise StoreError(body.rstrip(b'\0').decode())
        return body

    def read(self, path, txn=0):
        return self.request('READ', path, txn=txn).decode()

    def read_or_none(self, path):
        try:
            return self.read(path)
        except StoreError as error:
            if str(error) != 'ENOENT':
                raise
            return None

    def write(self, path, value, txn=0):
        self.request('WRITE', path, value=value.encode('latin-1'), txn=txn)

    def remove(self, path):
        try:
            self.request('RM', path)
        except StoreError as error:
            if str(error) != 'ENOENT':
                raise

    def list(self, path):
        try:
            body = self.request('DIRECTORY', path)
        except StoreError as error:
            if str(error) == 'ENOENT':
                return []
            raise
        return [name.decode() for name in body.split(b'\0') if name]

    def perms(self, path):
        return self.request('GET_PERMS', path).rstrip(b'\0').decode().replace('\0', ',')

    def set_perms(self, path, text):
        self.request('SET_PERMS', path, *text.split(','))

    def transact(self, body):
        while True:
            txn = int(self.request('TRANSACTION_START', '').rstrip(b'\0'))
            body(txn)
            try:
                self.request('TRANSACTION_END', 'T', txn=txn)
                return
            except StoreError as error:
                if str(error) != 'EAGAIN':
                    raise


class Machine:
    """The imitated machine's file; the layout is tests/imitation/machine.h's."""
    HEADER, SLOT, SLOTS = 64, 128, 4096
    MEMORY, FRAMES, FRAME = 4096 + SLOT * SLOTS, 32768, 4096

    def __init__(self, path, page_kib=4):
        with open(path, 'wb') as file:
            file.truncate(self.MEMORY + self.FRAMES * self.FRAME)
        with open(path, 'r+b') as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.page_kib = page_kib
        self.used_frames = 0
        struct.pack_into('I', self.map, 32, page_kib)

    def pages(self, kib):
        return kib // self.page_kib

    def new_frame(self):
        self.used_frames += 1  # frame 0 is nobody's
        return self.used_frames

    def frame_at(self, frame):
        return self.MEMORY + frame * self.FRAME

    def _at(self, domid, offset):
        return self.HEADER + self.SLOT * domid + offset

    def get(self, domid, field):
        offset, form = self.FIELDS[field]
        return struct.unpack_from(form, self.map, self._at(domid, offset))[0]

    def set(self, domid, field, value):
        offset, form = self.FIELDS[field]
        struct.pack_into(form, self.map, self._at(domid, offset), value)

    FIELDS = {'used': (0, 'I'), 'flags': (4, 'I'), 'width': (8, 'I'), 'shared_info_frame': (12, 'I'),
              'tot_pages': (16, 'Q'), 'max_pages': (24, 'Q'), 'refused': (32, 'Q'), 'max_gfn': (40, 'Q'),
              'pod_entries': (48, 'Q'), 'shared_pages': (56, 'Q'), 'paged_pages': (64, 'Q'), 'uuid': (72, '40s')}

    def set_host(self, version=0, lacks=0, error=0):
        struct.pack_into('III', self.map, 36, version, lacks, error)

    def lists(self):
        return struct.unpack_from('Q', self.map, 0)[0]

    def gets(self):
        return struct.unpack_from('Q', self.map, 8)[0]

    def maps(self):
        return struct.unpack_from('Q', self.map, 24)[0]


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.code = error['code']
        self.data = error.get('data', {})


class Client:
    """One connection to the control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.buffer = bytearray()
        self.id = 0
        self.replies = {}
        self.events = []

    def close(self):
        self.socket.close()

    def readable(self):
        return bool(select.select([self.socket], [], [], 0)[0])

    def text(self, timeout):
        """The next line as it came."""
        end = time.monotonic() + timeout
        searched = 0
        while (at := self.buffer.find(b'\n', searched)) < 0:
            searched = len(self.buffer)
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError(f'nothing from the daemon within {timeout} s')
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError('the daemon closed the connection')
            self.buffer += data
        line = bytes(self.buffer[:at])
        del self.buffer[:at + 1]
        return line

    def line(self, timeout):
        return json.loads(self.text(timeout))

    def take(self, timeout):
        message = self.line(timeout)
        if message.get('method') == 'event':
            self.events.append(message['params'])
        else:
            self.replies[message['id']] = message

    def send(self, method, **params):
        self.id += 1
        request = {'jsonrpc': '2.0', 'id': self.id, 'method': method, 'params': params}
        self.socket.sendall(json.dumps(request).encode() + b'\n')
        return self.id

    def reply(self, number, timeout=90):
        while number not in self.replies:
            self.take(timeout)
        message = self.replies.pop(number)
        if 'error' in message:
            raise RpcError(message['error'])
        return message['result']

    def call(self, method, timeout=90, **params):
        return self.reply(self.send(method, **params), timeout)

    def event(self, kind, timeout=40, **fields):
        """Waits for an event of this kind; earlier ones are dropped."""
        end = time.monotonic() + timeout
        while True:
            while self.events:
                event = self.events.pop(0)
                if event['type'] == kind and all(event.get(key) == value for key, value in fields.items()):
                    return event
            self.take(max(0.01, end - time.monotonic()))

    def hold(self, domain, wait=True, **params):
        policy = dict(QUICK, **params.pop('policy', {}))
        return self.call('guard.begin', domain=domain, wait=wait, policy=policy, **params)


NOBODY = 65534


def become(uid=NOBODY, gid=NOBODY, groups=()):
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


# oxenstored hands its state to its next program in /run/xenstored, whatever it was told of other places.
OWN_RUN = 'mount -t tmpfs tmpfs /run && mkdir /run/xenstored && exec "$@"'
LIVE_UPDATE = KIND == 'c' or not subprocess.call(['unshare', '--mount', 'true'], stderr=subprocess.DEVNULL)


class Host:
    program = 'p2mguardd-imitated'
    log_level = 'debug'

    def __init__(self, configuration=None, page_kib=4):
        self.folder = tempfile.mkdtemp(prefix='p2mg-')
        self.store_path = self.folder + '/socket'
        self.control = self.folder + '/control'
        self.log_path = self.folder + '/daemon.log'
        self.machine = Machine(self.folder + '/machine', page_kib)
        self.environment = dict(os.environ, P2MG_XS_DIR=self.folder, XENSTORED_PATH=self.store_path,
                                P2MGUARD_IMITATED_MACHINE=self.folder + '/machine')
        self.configuration = PATIENT if configuration is None else configuration
        self.storms, self.clients = [], []
        self.daemon = self.xenstored = self.guests = None
        self.domains, self.layouts, self.with_guests, self.introduced = {}, {}, set(), set()
        try:
            self._start_xenstored()
            self.store = Store(self.store_path)
            self._start_guests()
            self.start_daemon()
        except BaseException:
            self.stop()
            raise

    # ---- processes ----

    def _start_xenstored(self):
        environment = dict(self.environment, XENSTORED_RUNDIR=self.folder, LD_PRELOAD=BUILD + '/xen-preload.so')
        if KIND == 'c':
            command = [XEN_BIN + '/xenstored', '-N']
        else:
            for name, content in (('kva', b'\0' * 4096), ('port', b'1'), ('ox.conf', f'''
pid-file = {self.folder}/ox.pid
xenstored-log-file = {self.folder}/ox.log
access-log-file = {self.folder}/access.log
ring-scan-interval = 1
xenstored-kva = {self.folder}/kva
xenstored-port = {self.folder}/port
'''.encode())):
                with open(f'{self.folder}/{name}', 'wb') as file:
                    file.write(content)
            command = [XEN_BIN + '/oxenstored', '--no-fork', '--config-file', self.folder + '/ox.conf']
            if LIVE_UPDATE:
                command = ['unshare', '--mount', 'sh', '-ec', OWN_RUN, 'sh', *command]
        with open(self.folder + '/xenstored.out', 'wb') as out:
            self.xenstored = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                              stderr=out, start_new_session=True)
        def answers():
            try:
                Store(self.store_path).close()
                return True
            except OSError:
                return False
        wait_until(answers, 40, 'xenstored')

    def restart_xenstored(self):
        """A new one, which remembers nothing; the guests have lost it for good."""
        self.xenstored.kill()
        self.xenstored.wait()
        self.store.close()
        for name in ('socket', 'evtchn.sock'):
            if os.path.exists(f'{self.folder}/{name}'):
                os.unlink(f'{self.folder}/{name}')
        self._start_xenstored()
        self.store = Store(self.store_path)

    def _start_guests(self):
        self.guests_lock = threading.Lock()
        self.guests = subprocess.Popen([BUILD + '/imitated-guests'], env=self.environment, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True, bufsize=1)

    def start_daemon(self, wait=True):
        path = self.folder + '/p2mguard.conf'
        with open(path, 'w', encoding='utf-8') as file:
            file.write(self.configuration)
        command = os.environ.get('P2MGUARD_UNDER', '').split()  # valgrind, for one
        command += [f'{BUILD}/{self.program}', '--socket', self.control, '--log-level', self.log_level, '--config', path]
        with open(self.log_path, 'ab') as log:
            self.daemon = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stderr=log)
        if wait:
            wait_until(self._daemon_answers, 40, 'the daemon')

    def _daemon_answers(self):
        if self.daemon.poll() is not None:
            raise AssertionError(f'the daemon ended with {self.daemon.returncode}: {self.log_tail()}')
        try:
            Client(self.control).close()
            return True
        except OSError:
            return False

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon.wait()

    def stop_daemon(self):
        """SIGTERM; the exit status."""
        self.daemon.terminate()
        return self.daemon.wait(30)

    def log_tail(self, lines=40):
        with open(self.log_path, encoding='utf-8', errors='replace') as log:
            return '\n'.join(log.read().splitlines()[-lines:])

    def stop(self):
        for storm in self.storms:
            storm.stop()
        for client in self.clients:
            client.close()
        if self.xenstored:
            os.kill(self.xenstored.pid, signal.SIGCONT)
        status = None
        if self.daemon:
            if self.daemon.poll() is None:
                self.daemon.terminate()
            try:
                status = self.daemon.wait(30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
        if self.guests:
            self.guests.kill()
            self.guests.wait()
            self.guests.stdin.close()
            self.guests.stdout.close()
        if self.xenstored:
            self.xenstored.kill()
            self.xenstored.wait()
            self.store.close()
        with open(self.log_path, encoding='utf-8', errors='replace') as log:
            text = log.read()
        shutil.rmtree(self.folder, ignore_errors=True)
        for sign in ('AddressSanitizer', 'runtime error', 'LeakSanitizer'):
            if sign in text:
                raise AssertionError('the sanitizers found something:\n' + text[text.index(sign) - 200:][:4000])
        return status

    def client(self):
        client = Client(self.control)
        self.clients.append(client)
        return client

    def as_user(self, body, uid=NOBODY, gid=NOBODY, groups=()):
        """What body(client) returns in a process of that user's, and the process."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            answer = 'the child failed'
            try:
                become(uid, gid, groups)
                answer = body(Client(self.control))
            except Exception as error:  # the parent is to see it
                answer = repr(error)
            finally:
                os.write(writing, json.dumps(answer).encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = json.load(pipe)
        os.waitpid(child, 0)
        return answer, child

    # ---- domains ----

    def tell_guest(self, line):
        with self.guests_lock:
            self.guests.stdin.write(line + '\n')
            answer = self.guests.stdout.readline().rstrip('\n')
        if not answer.startswith('ok'):
            raise AssertionError(f'{line}: {answer}')
        return answer[3:]

    def ask_guest(self, line):
        with self.guests_lock:
            self.guests.stdin.write(line + '\n')
            return self.guests.stdout.readline().rstrip('\n')

    def create(self, domid, name=None, target_kib=262144, offset_kib=0, mode='normal', uuid=None, flags=0,
               generation=None, layout=None, options='', guest=True, introduce=True, videoram_kib=None):
        """A domain as libxl makes it, and a guest in it; with a p2m when there is a generation or a layout."""
        name = name or f'guest{domid}'
        uuid = uuid or f'{domid:08x}-0000-4000-8000-{domid:012x}'
        home, vm = f'/local/domain/{domid}', f'/vm/{uuid}'
        pages = self.machine.pages(target_kib + offset_kib)
        if generation is not None or layout is not None:
            self.layouts[domid] = Layout(self.machine, generation=generation or 0,
                                         **dict({'max_pfn': pages}, **(layout or {})))
        p2m = self.layouts.get(domid)
        slot = {'uuid': uuid.encode(), 'flags': flags, 'tot_pages': pages,
                'max_pages': pages + self.machine.pages(1024), 'width': p2m.width if p2m else 0,
                'shared_info_frame': p2m.info if p2m else 0, 'refused': 0, 'max_gfn': pages + 16, 'used': 1}
        for field, value in slot.items():
            self.machine.set(domid, field, value)

        readable, own = f'n0,r{domid}', f'n{domid}'
        nodes = [(home, '', readable), (vm, '', readable), (home + '/vm', vm, readable), (home + '/name', name, readable),
                 (home + '/domid', str(domid), readable), (home + '/memory', '', readable),
                 (home + '/memory/static-max', '4194304', readable), (home + '/memory/target', str(target_kib), readable),
                 (home + '/control', '', readable), (home + '/control/shutdown', '', own),
                 (home + '/control/feature-suspend', '', own), (home + '/control/balloon-active', '0', own),
                 (home + '/data', '', own), (vm + '/uuid', uuid, readable), (vm + '/name', name, readable)]
        if videoram_kib is not None:
            nodes.append((home + '/memory/videoram', str(videoram_kib), readable))
        def body(txn):
            for path, value, perms in nodes:
                self.store.write(path, value, txn)
                self.store.request('SET_PERMS', path, *perms.split(','), txn=txn)
        self.store.transact(body)
        for kind in ('ring', 'port'):
            if os.path.exists(f'{self.folder}/{kind}-{domid}'):
                os.unlink(f'{self.folder}/{kind}-{domid}')
        if introduce:
            self.introduce(domid)
        self.domains[domid] = uuid
        if guest and introduce:
            self.tell_guest(f'start {domid} {offset_kib} {mode} {options}')
            self.with_guests.add(domid)
        return self.snapshot(domid)

    def introduce(self, domid):
        self.store.request('INTRODUCE', str(domid), '1', '9')
        self.introduced.add(domid)

    def destroy(self, domid):
        self.machine.set(domid, 'flags', DYING)
        if domid in self.with_guests:
            self.tell_guest(f'stop {domid}')
            self.with_guests.remove(domid)
        self.store.remove(f'/local/domain/{domid}')
        self.store.remove('/vm/' + self.domains.pop(domid))
        self.machine.set(domid, 'used', 0)
        self.layouts.pop(domid, None)
        if domid in self.introduced:
            self.store.request('RELEASE', str(domid))
            self.introduced.remove(domid)

    def mem_set(self, domid, kib):
        """What "xl mem-set" does: max_pages, then the target in a transaction."""
        self.machine.set(domid, 'max_pages', self.machine.pages(kib + 1024))
        path = f'/local/domain/{domid}/memory/target'
        def body(txn):
            self.store.read(path, txn)
            self.store.write(path, str(kib), txn)
        self.store.transact(body)

    def target(self, domid):
        return self.store.read_or_none(f'/local/domain/{domid}/memory/target')

    def snapshot(self, domid):
        """All that the guard touches, to be compared byte for byte."""
        home = f'/local/domain/{domid}/memory'
        nodes = {name: self.store.perms(f'{home}/{name}') for name in self.store.list(home)}
        return {'target': self.target(domid), 'memory': self.store.perms(home), 'nodes': nodes,
                'max_pages': self.machine.get(domid, 'max_pages')}

    def tot_pages(self, domid):
        return self.machine.get(domid, 'tot_pages')

    def wait_rest(self, domid, kib, offset_kib=0, timeout=40):
        wait_until(lambda: self.tot_pages(domid) == self.machine.pages(kib + offset_kib), timeout,
                   f'domain {domid} at {kib} KiB')

    def journals(self):
        return self.store.list(SESSIONS)

    def storm(self, domid, targets=(307200, 256000, 409600, 266240, 512000), interval=0.5):
        storm = Storm(self, domid, targets, interval)
        self.storms.append(storm)
        return storm


class Storm(threading.Thread):
    """A toolstack that changes a guest's target all the time."""

    def __init__(self, host, domid, targets, interval):
        super().__init__(daemon=True)
        self.host, self.domid, self.targets, self.interval = host, domid, targets, interval
        self.over = threading.Event()
        self.last = self.error = None
        self.count = 0
        self.start()

    def run(self):
        try:
            while not self.over.is_set():
                self.last = self.targets[self.count % len(self.targets)]
                self.host.mem_set(self.domid, self.last)
                self.count += 1
                self.over.wait(self.interval)
        except (OSError, StoreError) as error:
            self.error = error

    def stop(self):
        """Ends it; the target it asked for last."""
        self.over.set()
        self.join()
        return self.last


if not os.path.exists(BUILD + '/p2mguardd-imitated'):
    sys.exit(f'no p2mguardd-imitated in {BUILD}; set P2MGUARD_BUILD')
BUILD = os.path.abspath(BUILD)
with open(BUILD + '/p2mguardd-imitated', 'rb') as program:
    SANITIZED = b'__asan_init' in program.read()  # and several times slower
