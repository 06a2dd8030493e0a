# SPDX-License-Identifier: LGPL-2.1-or-later
"""The OpenRPC document as what the daemon says is held against it, strictly: what is not documented is wrong.

The judging itself is done by ajv, in tests/clients/judge.js, because OpenRPC's meta-schema is published for npm and Debian
has no python3 with a validator that every python3 in PATH would find. The tests are in Python like all others: they need
the fixture.
"""
import json
import os
import shutil
import subprocess
import unittest

from fixture import BUILD, Client

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.join(HERE, '../clients')
SCHEMAS = '#/components/schemas/'
ERRORS = '#/components/errors/'


def read_document():
    with open(os.path.join(HERE, '../../protocol/openrpc.json'), encoding='utf-8') as file:
        return json.load(file)


def run_node(script, *arguments, **options):
    """A program of tests/clients, with the npm packages that it needs; skips the test where they are not there."""
    modules = os.path.join(os.environ.get('P2MGUARD_CLIENTS', BUILD + '/clients'), 'node_modules')
    if not shutil.which('node'):
        raise unittest.SkipTest('there is no node')
    if not os.path.exists(modules + '/.package-lock.json'):
        raise unittest.SkipTest(f'no npm packages in {modules}: run tests/clients/fetch, or set P2MGUARD_CLIENTS')
    return subprocess.Popen(['node', os.path.join(CLIENTS, script), *arguments], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, bufsize=1, env=dict(os.environ, NODE_PATH=modules),
                            **options)


class Judge:
    def __init__(self):
        self.process = run_node('judge.js')

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + '\n')
        answer = self.process.stdout.readline()
        if not answer:
            raise AssertionError('the judge has ended')
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def closed(schema, is_part=False):
    """The schema, allowing nothing that it does not name. Parts of an allOf leave that to the whole."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == '$ref':
            result[key] = ('part-' if is_part else '') + value.removeprefix(SCHEMAS)
        elif key == 'properties':
            result[key] = {name: closed(member) for name, member in value.items()}
        elif key == 'allOf':
            result[key] = [closed(part, is_part=True) for part in value]
        elif key in ('items', 'oneOf', 'anyOf', 'additionalProperties', 'propertyNames'):
            result[key] = closed(value)
        else:
            result[key] = value
    if not is_part and ('properties' in schema or 'allOf' in schema) and 'additionalProperties' not in schema:
        result['unevaluatedProperties'] = False
    return result


class Contract:
    """The document's lists, and schemas made of it, by name."""

    def __init__(self, document):
        self.document = document
        self.errors = document['components']['errors']
        self.methods = {method['name']: method for method in document['methods']}
        self.method_errors = {name: {self._error_name(error) for error in method['errors']}
                              for name, method in self.methods.items()}
        self.protocol_errors = {self._error_name(error) for error in document['x-protocol-errors']}
        self.error_names = {error['code']: name for name, error in self.errors.items()}
        self.events = {event['type']: event for event in document['x-events']}

    @staticmethod
    def _error_name(reference):
        return reference['$ref'].removeprefix(ERRORS)

    def candidates(self, schema):
        """Values for a parameter, right ones and wrong ones, at the limits where there are any."""
        if '$ref' in schema:
            return self.candidates(self.document['components']['schemas'][schema['$ref'].removeprefix(SCHEMAS)])
        values = ['', 'x', '1', 0, 1, -1, 1.5, True, False, None, [], {}, {'x': 1}, *schema.get('enum', [])]
        values += [schema[key] + step for key in ('minimum', 'maximum') if key in schema for step in (-1, 0, 1)]
        for part in schema.get('oneOf', []) + schema.get('allOf', []):
            values += self.candidates(part)
        for name, member in schema.get('properties', {}).items():
            values += [{name: value} for value in self.candidates(member)]
        return values

    def schemas(self):
        found = {}
        for name, schema in self.document['components']['schemas'].items():
            found[name] = closed(schema)
            found['part-' + name] = closed(schema, is_part=True)
        for name, method in self.methods.items():
            found['result-' + name] = closed(method['result']['schema'])
            for parameter in method['params']:
                found[f"param-{name}-{parameter['name']}"] = closed(parameter['schema'])
        for name, entry in self.document['x-errors'].items():
            found['error-' + name] = closed(entry['data'])
        for kind, event in self.events.items():
            found['event-' + kind] = closed(self._event_schema(event))
        return found

    def _event_schema(self, event):
        """The head that all events have, with the event's own members; all of them have to be there."""
        head = self.document['components']['schemas']['Event']
        about_session = {} if event['about'] == 'session' else {'session', 'domid', 'name'}
        properties = {name: member for name, member in head['properties'].items() if name not in about_session}
        properties.update(event['members'])
        properties['type'] = dict(properties['type'], const=event['type'])
        return {'type': 'object', 'properties': properties, 'required': list(properties)}


class Ledger:
    """What has been seen of the contract, and whatever was not as it says."""

    def __init__(self, contract, judge):
        self.contract, self.judge = contract, judge
        self.results, self.errors, self.events = set(), set(), set()
        self.faults = []
        self.faults += judge.ask(learn=contract.schemas())

    def fault(self, where, what, message):
        self.faults.append(f'{where}: {what} in {json.dumps(message)[:2000]}')

    def _judge(self, name, value, message):
        for fault in self.judge.ask(name=name, value=value):
            self.fault(name, fault, message)

    def _expect(self, where, got, expected, message):
        if got != expected:
            self.fault(where, f'{got!r} and not {expected!r}', message)

    def see(self, message, method=None):
        """One message of the daemon's; `method` is what it answers, None where it answers no request."""
        self._expect('jsonrpc', message.get('jsonrpc'), '2.0', message)
        if 'method' in message:
            self._expect('notification', set(message), {'jsonrpc', 'method', 'params'}, message)
            self._see_event(message['params'], message)
        elif 'error' in message:
            self._expect('error', set(message), {'jsonrpc', 'id', 'error'}, message)
            self._see_error(message['error'], method, message)
        else:
            self._expect('reply', set(message), {'jsonrpc', 'id', 'result'}, message)
            self.results.add(method)
            self._judge('result-' + str(method), message['result'], message)

    def _see_event(self, event, message):
        self.events.add(event['type'])
        self._judge('event-' + event['type'], event, message)

    def _see_error(self, error, method, message):
        name = self.contract.error_names.get(error['code'])
        if name is None:
            self.fault(method, 'an error that the document does not know', message)
            return
        self._expect(name, set(error), {'code', 'message', 'data'}, message)
        self._expect(name, error['message'], self.contract.errors[name]['message'], message)
        self._judge('error-' + name, error['data'], message)
        if method in self.contract.methods:
            self.errors.add((method, name))
            if name not in self.contract.method_errors[method]:
                self.fault(method, f'{name} is not among its errors', message)
        else:
            self.errors.add((None, name))
            if name not in self.contract.protocol_errors:
                self.fault(None, f'{name} is no answer to what is no call', message)


class Witness(Client):
    """A client that enters all that the daemon says into a ledger."""

    def __init__(self, path, ledger):
        super().__init__(path)
        self.ledger = ledger
        self.asked = {}

    def send(self, method, **params):
        number = super().send(method, **params)
        self.asked[number] = method
        return number

    def line(self, timeout):
        message = super().line(timeout)
        for entry in message if isinstance(message, list) else [message]:
            self.ledger.see(entry, self.asked.get(entry.get('id')))
        return message

    def batch(self, calls):
        """Sends these (method, params) as one; the replies in the order of the calls."""
        requests = []
        for method, params in calls:
            self.id += 1
            self.asked[self.id] = method
            requests.append({'jsonrpc': '2.0', 'id': self.id, 'method': method, 'params': params})
        self.socket.sendall(json.dumps(requests).encode() + b'\n')
        while True:
            message = self.line(90)
            if isinstance(message, list):
                replies = {reply['id']: reply for reply in message}
                return [replies[request['id']] for request in requests]
            self.events.append(message['params'])
