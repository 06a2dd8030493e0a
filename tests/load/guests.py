# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests and toolstacks that do what they can to keep the daemon busy."""
import os
import socket
import struct
import time

from measure import Process, Usage, measure
from fixture import QUICK, Client, Host, RpcError, Store, StoreError, wait_until

RESIDENTS = 32
IMPOSSIBLE = 40, 41  # whose p2m cannot be
FIRST_COMER = 100
COMERS = 60  # so many numbers, used again and again


class Watcher(Store):
    """A connection with watches."""
    TYPES = dict(Store.TYPES, WATCH=4)
    EVENT = 15

    def request(self, kind, *texts, value=b'', txn=0):
        payload = b''.join(text.encode() + b'\0' for text in texts) + value
        self.socket.sendall(struct.pack('<IIII', self.TYPES[kind], 0, txn, len(payload)) + payload)
        while True:
            reply, body = self.message()
            if reply != self.EVENT:
                break
            self.fired = True
        if reply == 16:
            raise StoreError(body.rstrip(b'\0').decode())
        return body

    fired = False

    def message(self):
        reply, _, _, length = struct.unpack('<IIII', self._receive(16))
        return reply, self._receive(length)

    def wait(self, timeout):
        """Whether a watch has fired since."""
        self.socket.settimeout(timeout)
        try:
            while not self.fired:
                self.fired = self.message()[0] == self.EVENT
        except socket.timeout:
            return False
        finally:
            self.socket.settimeout(None)
        self.fired = False
        return True


def rewrite_target(stop, path, domid):
    """A toolstack that does not put up with any other target than its own, which it changes each time."""
    store, count = Watcher(path), 0
    node = f'/local/domain/{domid}/memory/target'
    store.request('WATCH', node, 'loop')
    while not stop:
        if store.wait(0.2):
            count += 1
            store.write(node, str(262144 + count % 7))
    return {'count': count, 'last': str(262144 + count % 7)}


def flood(stop, path, domid):
    """All that a guest may write, as fast as xenstored takes it."""
    store, count = Store(path), 0
    home = f'/local/domain/{domid}'
    while not stop:
        store.write(f'{home}/data/p2mguard/state', ('frozen %d' % count, 'busy 1', '\0\xff' * 40)[count % 3])
        store.write(f'{home}/control/balloon-active', str(count % 2))
        store.write(f'{home}/name', f'guest{domid}' if count % 2 else f'guest{domid}x')
        store.write(f'{home}/memory/videoram', str(count))
        count += 1
    return 4 * count


def fill(host, domid, text='x' * 1000):
    """Nodes until the guest has used up what xenstored gives it, through the guest's own connection."""
    import subprocess
    from fixture import BUILD
    path = f'{host.folder}/guest-{domid}'
    proxy = subprocess.Popen([BUILD + '/guest-socket', str(domid), path], env=host.environment, stdin=subprocess.DEVNULL)
    wait_until(lambda: os.path.exists(path), 5, 'the guest\'s socket')
    guest, count, said = Store(path), 0, None
    try:
        while count < 20000:
            guest.write(f'/local/domain/{domid}/data/{count}', text)
            count += 1
    except StoreError as error:
        said = str(error)
    guest.close()
    proxy.kill()
    proxy.wait()
    return count, said


class Guests:
    """A host whose guests come and go, while some stay and misbehave."""

    def __init__(self, case, duration_s, rate_a_minute, configuration=''):
        self.case, self.duration_s, self.interval_s = case, duration_s, 60 / rate_a_minute
        self.host = Host('[daemon]\nmax_gap_ms = 60000\n' + configuration)
        self.client = self.host.client()
        self.alive = {}  # domid: when it is to go
        self.made = self.reused = self.sessions = self.refused = 0
        self.gone_s = {}

    # ---- those that come and go ----

    def come(self):
        free = [domid for domid in range(FIRST_COMER, FIRST_COMER + COMERS) if domid not in self.alive]
        domid = min(free)  # the last one to go, as often as not
        self.made += 1
        self.reused += time.monotonic() - self.gone_s.get(domid, 0) < 1
        self.host.create(domid, name=f'comer{self.made}', uuid=f'{self.made:08x}-1111-4000-8000-{domid:012x}', guest=False)
        self.alive[domid] = time.monotonic() + (0.05, 0.5, 1.5)[self.made % 3]
        if self.made % 4 == 0:
            policy = dict(QUICK, require='gate', freeze_timeout_ms=1000)
            self.client.send('guard.begin', domain=domid, hold='detached', policy=policy)
            self.sessions += 1

    def go(self, domid):
        del self.alive[domid]
        self.host.destroy(domid)
        self.gone_s[domid] = time.monotonic()

    def take_answers(self):
        while self.client.readable():
            self.client.take(1)
        for number in list(self.client.replies):
            self.refused += 'error' in self.client.replies.pop(number)

    def churn(self, duration_s):
        begun, made = time.monotonic(), self.made
        while time.monotonic() - begun < duration_s:
            due_s = begun + (self.made - made) * self.interval_s
            now_s = time.monotonic()
            for domid in [domid for domid, until_s in self.alive.items() if until_s <= now_s]:
                self.go(domid)
            if due_s <= now_s:
                self.come()
            else:
                time.sleep(min(due_s - now_s, 0.01))
            self.take_answers()
        for domid in list(self.alive):
            self.go(domid)
        rate = (self.made - made) / (time.monotonic() - begun) * 60
        self.case.say(f'{self.made - made} domains at {rate:.0f} a minute; until now {self.reused} domids used again '
                      f'within 1 s, {self.sessions} sessions ({self.refused} of domains that had gone)')
        self.case.check(rate >= 0.95 * 60 / self.interval_s, f'only {rate:.0f} domains a minute')

    # ---- those that stay ----

    def make_residents(self):
        self.before = {domid: self.host.create(domid, guest=False) for domid in range(1, RESIDENTS + 1)}
        for domid, field, value in zip(IMPOSSIBLE, ('p2m_cr3', 'max_pfn'), (1 << 60, (1 << 64) - 1)):
            self.host.create(domid, guest=False, generation=2)
            self.host.layouts[domid].set(field, value)

    def begin(self, domid, **policy):
        return self.client.call('guard.begin', domain=domid, hold='detached', wait=True, policy=dict(QUICK, **policy))

    def warm_up(self):
        """Fills what is kept for ever: the ring of events, and the sessions that can still be shown."""
        while self.newest() < 4200:
            numbers = [self.client.send('guard.begin', domain=domid, hold='detached', wait=True,
                                        policy=dict(QUICK, require='gate')) for domid in range(1, RESIDENTS + 1)]
            sessions = [self.client.reply(number)['session'] for number in numbers]
            numbers = [self.client.send('guard.end', session=session, outcome='failed') for session in sessions]
            for number in numbers:
                self.client.reply(number)
        self.churn(2)

    def newest(self):
        """The number of the last event."""
        other = Client(self.host.control)
        number = other.call('events.subscribe')['next'] - 1
        other.close()
        return number

    def impossible_roots(self):
        for domid in IMPOSSIBLE:
            try:
                self.begin(domid, freeze_timeout_ms=1000)
                self.case.check(False, f'domain {domid} with an impossible p2m was held')
            except RpcError:
                pass

    def full_nodes(self):
        count, said = fill(self.host, 3)
        self.case.check(said is not None, 'no quota: a guest could write 20000 nodes')
        session = self.begin(3)
        self.case.check(session['state'] == 'held', 'a guest that has filled its nodes could not be held')
        self.client.call('guard.end', session=session['session'], outcome='failed')
        self.case.say(f'a guest wrote {count} nodes until {said}, and was held')

    def run(self):
        self.make_residents()
        self.full_nodes()
        self.warm_up()
        usage = Usage(self.host)
        looped, flooded, calm = self.begin(1), self.begin(2), self.begin(4)
        loop = Process(rewrite_target, self.host.store_path, 1)
        floods = [Process(flood, self.host.store_path, 2)]
        self.impossible_roots()
        measure(self.case, self.host, calm, 'hostile guests', lambda: self.churn(self.duration_s))
        wrote, looping = [process.stop() for process in floods], loop.stop()
        self.case.say(f"{sum(wrote)} writes by a guest, target changed {looping['count']} times")
        self.end_all((looped, flooded, calm))
        self.check_whole(looping['last'])
        usage.check_back(self.case, 'guests')

    def end_all(self, sessions):
        for session in sessions:
            try:
                self.client.call('guard.end', session=session['session'], outcome='failed')
            except RpcError:
                pass  # it has ended by itself: a name that changes does that
        wait_until(lambda: not self.client.call('guard.list')['sessions'], 30, 'the end of all sessions')

    def check_whole(self, wanted='262144'):
        """Nothing is left; the first guest has the target that was wanted for it."""
        self.case.check(self.host.journals() == [], f'journals are left: {self.host.journals()}')
        self.case.check(self.host.store.list('/tool/p2mguard/migrate') == [], 'answers are left in xenstore')
        self.case.check(self.host.target(1) == wanted, f'target {self.host.target(1)}, wanted {wanted}')
        for domid in range(2, RESIDENTS + 1):
            found = self.host.snapshot(domid)
            found['nodes'].pop('videoram', None)
            self.case.check(found == self.before[domid], f'domain {domid}: {found}, before {self.before[domid]}')
        left = [domid for domid in self.host.store.list('/local/domain') if int(domid) >= FIRST_COMER]
        self.case.check(left == [], f'made anew in xenstore: {left}')


def run(case, long):
    guests = Guests(case, 300 if long else 10, 1000)
    try:
        guests.run()
    finally:
        Process.stop_all()
        guests.host.stop()
