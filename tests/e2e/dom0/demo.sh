# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# For people: a migration that fails, the same one guarded, and what the daemon did meanwhile.
xl_migrate="xl migrate -s '' $GUEST $RECEIVE"
seconds() { awk "BEGIN {printf \"%.1f s\", $1 / 1000}"; }

# One line of plain language for each event of the daemon; the verdicts asked for on the way are left out when good.
timeline() { # FILE of events, one JSON object a line
	jq -rs '
		def mib: if . == null then "?" else "\(. / 1024 | round) MiB" end;
		def seconds: (. / 10 | round) as $n | "    \($n / 100 | floor).\("0\($n % 100)"[-2:])"[-6:];
		(map(select(.type == "session.begun"))[0].time_ms) as $start
		| .[] | select($start != null and .time_ms >= $start)
		| {
			"session.begun": "asked to guard the guest, which has \(.tot_kib | mib) at this moment",
			"session.gated": "shut the gate: the guest cannot see new targets; capped it at \(.cap_kib | mib)",
			"session.pinned": "the guest now sees one target only, its own size: \(.pin_kib | mib)",
			"session.quiet": "nothing else was visible for the quiet time; shut the gate again",
			"session.held": "HELD: the guest stands still (after \(.after_ms) ms)",
			"session.changed": "the guest changed after all: \(.reason)",
			"target.deferred": "the toolstack asked for \(.target_kib | mib): kept for later, the guest never sees it",
			"gate.restored": "somebody opened the gate; shut it again",
			"session.retry": "attempt \(.attempt) begins",
			"session.verdict": (if .phase != "precopy" or .verdict != "proceed" then "verdict: \(.verdict) (\(.reason))" else null end),
			"session.failed": "could not hold the guest: \(.text)",
			"session.thawing": "letting go (\(.outcome // .reason))",
			"session.gone": "done; the target asked for last is \(.wanted_target_kib | mib)"
		}[.type] as $text
		| select($text != null)
		| "  \(.time_ms - $start | seconds) s  \($text)"' "$1"
}

say "Xen is running, and so is dom0. Starting a $TYPE guest with 256 MiB of memory."
create_guest || { not_ok demo "no guest"; return; }
learn
say "The guest is up: domain $(domid)."
say
say "From now on somebody gives the guest another memory target twice a second:"
say "  xl mem-set $GUEST 300m; xl mem-set $GUEST 250m; xl mem-set $GUEST 400m; ..."
say
say "1. Without p2mguard"
say "  $xl_migrate"
failed=
for _ in 1 2 3; do
	storm_start
	status=0
	migrate_plain || status=$?
	storm_stop
	emulator_lost_guest && continue
	if ((status)); then
		failed=yes
		say "  FAILED after $(seconds "$(tail -n1 /tmp/times)"). What xl says:"
		say "  $(why_failed "$LOGS/migrate")"
		xl destroy "$GUEST--incoming" >/dev/null 2>&1
		break
	fi
	say "  migrated, by good luck; once more"
done
[[ -n $failed ]] || not_ok demo "stock Xen did not fail"
say
say "2. With p2mguard"
start_daemon || { not_ok demo "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }
p2mguardctl watch --json >/tmp/events 2>/dev/null &
watcher=$!
say "  p2mguardctl migrate --attempts 3 $GUEST -- $xl_migrate"
for _ in 1 2 3; do
	storm_start
	before=$(domid) status=0
	migrate_guarded 3 || status=$?
	storm_stop
	emulator_lost_guest || break
done
kill $watcher
if ((status == 0)); then
	say "  MIGRATED in $(seconds "$(tail -n1 /tmp/times)"), at attempt $(field '.attempts | length')." \
		"The guest was domain $before and is domain $(domid) now."
else
	say "  FAILED: p2mguardctl says $status; $(why_failed "$LOGS/migrate")"
	not_ok demo.guarded "the guarded migration failed"
fi
if guest_memory_ok; then
	say "  It runs, and its memory is what it was."
else
	not_ok demo.memory "the guest does not answer"
fi
say "  Its target is $(($(target_kib) / 1024)) MiB; the toolstack last asked for $(($(</tmp/storm.last) / 1024)) MiB."
say
say "3. What the daemon did"
timeline /tmp/events | while IFS= read -r line; do say "$line"; done
