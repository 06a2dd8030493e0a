# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is promised, all of it for one daemon: ten thousand connections, of which each asks something and stays, a thousand
domains made and destroyed a minute meanwhile, and a xenstored that stands still. And with the standard configuration: so
many connections that most are turned away."""
import os
import re
import resource
import signal
import time

from callers import MANY, Callers, hold_many
from guests import Guests
from measure import Process, Usage, descriptors, measure
from fixture import Client, wait_until

UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../units/p2mguardd.service.in')


def limit_of_unit(case):
    """What the daemon's unit gives it, as far as this machine lets us."""
    with open(UNIT, encoding='utf-8') as file:
        unit = int(re.search('^LimitNOFILE=([0-9]+)$', file.read(), re.M).group(1))
    limit = min(unit, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    case.say(f'the unit gives {unit} descriptors, used here: {limit}')
    os.environ['P2MGUARD_UNDER'] = f'prlimit --nofile={limit}:{limit}'


class Crowd(Guests):
    def connections(self):
        return self.client.call('daemon.info')['connections']

    def everybody(self):
        """Connections that stay, each of them served."""
        case, told, pid = self.case, self.host.folder + '/told', self.host.daemon.pid
        before = self.connections()
        begun = time.monotonic()
        many = Process(hold_many, self.host.control, MANY, told, True)
        wait_until(lambda: os.path.exists(told), 60, f'{MANY} connections')
        took_s = time.monotonic() - begun
        os.unlink(told)
        held = self.connections() - before
        case.say(f'{MANY} connections in {took_s:.1f} s: {held} served, {descriptors(pid)} descriptors')
        case.check(held == MANY, f'{held} connections were served')
        other = Client(self.host.control)
        case.check('version' in other.call('daemon.info', timeout=5), 'one more is not served')
        other.close()
        return many

    def nobody(self, many):
        found = many.stop()
        self.case.check(found == {'refused': 0, 'words': []}, f'of {MANY} connections: {found}')
        wait_until(lambda: self.connections() <= 2, 20, 'the end of all connections')

    def come_and_go(self):
        """Once more, so that the last of them stay while other things are measured."""
        wait_until(lambda: self.connections() == 2, 20, 'the caller that behaves well')
        self.nobody(self.everybody())

    def stall(self, duration_s):
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        time.sleep(duration_s)
        os.kill(self.host.xenstored.pid, signal.SIGCONT)

    def run(self, stall_s):
        self.make_residents()
        self.warm_up()
        usage = Usage(self.host)
        calm = self.begin(4, max_hold_ms=3600000)

        def measured(what, body, looks_up=True):
            measure(self.case, self.host, calm, what, body, looks_up)
        measured(f'{MANY} connect, ask and leave', self.come_and_go)
        wait_until(lambda: self.connections() == 1, 20, 'the end of all other connections')
        many = self.everybody()
        measured(f'{MANY} connections, 1000 domains a minute for {self.duration_s} s',
                 lambda: self.churn(self.duration_s))
        measured(f'{MANY} connections, xenstored stopped for {stall_s} s', lambda: self.stall(stall_s), looks_up=False)
        wait_until(lambda: self.client.call('daemon.info')['store'] == 'connected', 30, 'xenstored')
        self.nobody(many)
        self.end_all([calm])
        self.check_whole()
        usage.check_back(self.case, 'all that')


def run_standard(case):
    callers = Callers(case)
    try:
        callers.warm_up()
        usage = Usage(callers.host)
        callers.too_many()
        callers.whole()
        usage.check_back(case, 'with the standard configuration')
    finally:
        Process.stop_all()
        callers.host.stop()


def run(case, long):
    limit_of_unit(case)
    run_standard(case)
    crowd = Crowd(case, 300 if long else 15, 1000, 'max_connections = 11000\n')
    try:
        crowd.run(60 if long else 8)
    finally:
        Process.stop_all()
        crowd.host.stop()
        del os.environ['P2MGUARD_UNDER']
