# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# kill -9 of the daemon at random moments of a session, while a toolstack gives the guest another target all the time: held
# and let go by p2mguardctl or by a caller in xenstore, and migrated, by p2mguardctl or with the wrapper. Whoever comes
# after - the next daemon, the unit's thaw, a daemon that is killed as well - leaves no guest frozen or capped, and the
# target that was asked for last is not lost.
#
# What is done is drawn from a seed, which is printed: --set seed=NUMBER draws the same again.
kills=${E2E_kills:-100} seed=${E2E_seed:-$((SRANDOM % 32768))}
RANDOM=$seed
text=''        # what run_in_guest brings
LIFE=/tmp/life # the log of the daemon that runs, or was the last one

# In a shell of its own it would be drawn again and again. Hence no $(…).
draw() { # WORD…: one of them is $drawn
	local words=("$@")
	drawn=${words[RANDOM % $#]}
}

# Where clocks count instructions, waiting is what costs nothing.
# shellcheck disable=SC2034 # until_true uses it
POLL_S=0.3

# The guest's, where it does not change: xl takes its time to find it out.
here=
domid() { if [[ -n $here ]]; then echo "$here"; else xl domid "$GUEST" 2>/dev/null; fi; }

# A process takes longer to start than some of the moments are.
[[ -p /tmp/never ]] || mkfifo /tmp/never
exec 8<>/tmp/never
pause_ms() {
	local s
	printf -v s '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
	read -r -t "$s" -u 8
}

# --- the daemon and who comes after it ----------------------------------------------------------------------------------

launch() {
	: >$LIFE
	p2mguardd 8<&- >>$LIFE 2>&1 &
	DAEMON=$!
}
launch_and_wait() {
	launch
	until_true 20 daemon_answers || say "the daemon does not answer: $(tail -n1 $LIFE)"
}
kill_daemon() { # notes the state that it hits
	kill -9 "$DAEMON"
	killed_ms=$(now_ms)
	wait "$DAEMON" 2>/dev/null
	DAEMON=
	find_state
	{ tail -n 9 $LIFE; tail -n 3 "$LOGS/migrate"; } | cut -c1-100 # for the console's log
	cat $LIFE >>"$LOGS/daemon"
	struck+=("$state $after")
}

# Every event of a session is in the log before the daemon goes on.
find_state() {
	local line
	state=idle
	[[ -z $recovering ]] || state=recovering
	while read -r line; do
		case $line in
		*'session.begun '*) state=gating ;;
		*'session.gated '*) state=pinning ;;
		*'session.quiet '* | *'session.retry '*) state=settling ;;
		*'session.held '*) state=held ;;
		*'session.failed '* | *'session.thawing '*) state=thawing ;;
		*'session.gone '*) state=idle ;;
		*'put back what an earlier daemon left'*) state=recovered ;;
		esac
	done <$LIFE
	if [[ -e /tmp/copying ]]; then
		case $state in
		held) state=copying ;;
		idle) state=unguarded ;; # a migration that has lost its guard, and is about to fail
		esac
		[[ $state != copying ]] || ! domstat state "$id" | grep -q shutdown || state=suspended
	fi
}
unit_thaws() { /usr/libexec/p2mguard/thaw --all >>"$LOGS/thaw" 2>&1; }
journal() { xenstore-ls -f /tool/p2mguard/session 2>/dev/null; }

# As systemd does it: ExecStopPost, RestartSec, and ExecStart.
come_after_unit() {
	unit_thaws || say "thaw: $(tail -n1 "$LOGS/thaw")"
	pause_ms 100
	launch_and_wait
}
come_after_restart() { launch_and_wait; }
# For good, as far as this round goes; but a wish for a new domain that was still being built is left to the next one.
come_after_thaw() { unit_thaws || say "thaw: $(tail -n1 "$LOGS/thaw")"; }
come_after_second() {
	draw 20 40 60 80 100 150 200 300
	[[ -z $(journal) ]] || recovering=yes
	launch
	pause_ms "$drawn"
	kill_daemon
	recovering=
	launch_and_wait
}
come_after_gap() { # nobody is there for a while
	draw 500 1000 2000
	pause_ms "$drawn"
	launch_and_wait
}

# --- what is done meanwhile ---------------------------------------------------------------------------------------------

# The real helper, after it has said that pages are about to be copied.
cat >/tmp/noting-helper <<-'HELPER'
	#!/usr/bin/bash
	[[ $1 != --save-domain ]] || : >/tmp/copying
	exec /usr/lib/xen-4.17/bin/libxl-save-helper "$@"
HELPER
cat >/tmp/moving <<-COMMAND
	#!/usr/bin/bash
	trap : TERM
	timeout 240 xl migrate -s "" $GUEST $RECEIVE 2>&1
	status=\$?
	rm -f /tmp/copying
	: >/tmp/ending
	exit \$status
COMMAND
chmod +x /tmp/noting-helper /tmp/moving

begin_hold() {
	p2mguardctl begin --detached "$GUEST" || return
	pause_ms 1000
	: >/tmp/ending
	p2mguardctl end "$GUEST" failed >/dev/null
}
begin_nodes() {
	local node=/tool/p2mguard/migrate/$id
	xenstore-write "$node" begin
	until_true 20 answered held retry abort error
	pause_ms 800
	: >/tmp/ending
	xenstore-write "$node" 'end failed'
	pause_ms 500
}
answered() { # WORD…
	local verdict word
	verdict=$(xenstore-read "/tool/p2mguard/migrate/$id/verdict" 2>/dev/null)
	for word; do [[ $verdict != "$word"* ]] || return 0; done
	return 1
}
begin_ctl() { P2MGUARD_REAL_SAVE_HELPER=/tmp/noting-helper p2mguardctl migrate --attempts 2 "$GUEST" -- /tmp/moving; }
begin_wrapper() {
	local try
	for try in 1 2; do
		LIBXL_SAVE_HELPER=$WRAPPER P2MGUARD_REAL_SAVE_HELPER=/tmp/noting-helper /tmp/moving && return
		say "try $try with the wrapper: $(why_failed "$LOGS/migrate")" # until it is over, nobody else moves it
	done
}

# --- when ---------------------------------------------------------------------------------------------------------------

# Until the daemon says so, or whoever asked it has ended. Without PAUSE_MS nothing is missed.
await_log() { # WORDS [PAUSE_MS]
	local line
	while :; do
		if read -r line <&7; then
			[[ $line != *"$1"* ]] || return 0
		else
			kill -0 "$caller" 2>/dev/null || return 1
			[[ -z ${2:-} ]] || pause_ms "$2"
		fi
	done
}
await() { # CONDITION…
	until "$@"; do
		kill -0 "$caller" 2>/dev/null || return 1
		pause_ms 20
	done
	return 0 # the pause's status is that of a time limit
}
# The daemon lets a guest go when its caller says so, or when it has arrived.
is_ending() { [[ -e /tmp/ending ]] || is_suspended; }
is_suspended() { [[ -e /tmp/copying && $(domstat state "$id") == shutdown ]]; }

# Each with the longest time that is waited after it. Of some of them every moment counts, and others last for seconds.
wait_for_moment() { # MOMENT
	local most=${1#*+}
	local ms=$((RANDOM * most / 32768))
	case ${1%+*} in
	begin) ;;
	begun) await_log 'session.begun ' ;;
	thawing) await is_ending && await_log 'session.thawing ' ;;
	copying) await test -e /tmp/copying ;;
	suspended) await is_suspended ;;
	*) await_log "session.${1%+*} " 2 ;;
	esac
	((ms == 0)) || pause_ms "$ms"
}

# --- what has to be true afterwards ---------------------------------------------------------------------------------------

# Nodes of p2mguard's by which anybody would be held.
left_behind() { xenstore-ls -f / | grep -E '^/tool/p2mguard/session/|^/local/domain/[0-9]+/control/p2mguard\b'; }
nothing_left() { [[ -z $(left_behind) ]]; }
guest_thawed() { [[ -z $AGENT ]] || run_in_guest is_thawed; }
gate_is_open() { [[ $(permissions) == "$PERMISSIONS" ]]; }
not_capped() { (($(max_kib) == $(target_kib) + EXTRA_KIB)); }
target_is() { (($(target_kib) == $1)); }

# When the daemon that held the guest was dead: xl sets max_pages first, and had not written the target then.
asked_later() {
	local end
	read -r _ _ end _ < <(tail -n1 /tmp/storm.accepted)
	((end > killed_ms))
}

wrong() { # KIND TEXT
	bad[$1]=$((${bad[$1]:-0} + 1))
	say "WRONG: $1: $2"
}
judge() { # MIB: a target for afterwards
	local last here=
	here=$(domid) last=$(</tmp/storm.last)
	until_true 45 nothing_left || wrong frozen "left: $(left_behind | tr '\n' ' ')"
	until_true 10 gate_is_open || wrong frozen "permissions: $(permissions | tr '\n' ' ')"
	until_true 10 guest_thawed || wrong frozen "the guest's agent is frozen: $text"
	if ! until_true 5 target_is "$last"; then
		if asked_later && asked_of_domain_left; then
			late=$((late + 1))
			say "that $last KiB was asked of domain $id after the kill, and it has left that: as without p2mguard"
		else
			wrong target "$(target_kib) KiB instead of $last; $(tail -n1 /tmp/storm.accepted), the guest is domain $here"
		fi
	fi
	until_true 5 not_capped || wrong capped "max_pages is $(max_kib) KiB, the target $(target_kib) KiB"
	mem_set "$1" >>"$LOGS/storm" 2>&1 || wrong target "no other target is accepted"
	if ! until_true 60 settled || ! target_is $(($1 * 1024)); then
		wrong capped "asked for $1 MiB it has $(tot_kib) KiB, target $(target_kib) KiB"
	fi
	not_capped || wrong capped "max_pages is $(max_kib) KiB, the target $(target_kib) KiB"
	guest_memory_ok || {
		wrong memory "the guest does not run, or its memory is not what it was; another one from now on"
		xl destroy "$GUEST" >/dev/null 2>&1
		here=
		create_guest
	}
}

# --- rounds ---------------------------------------------------------------------------------------------------------------

round() { # leaves in $struck what was hit
	local moment how mib calm
	draw hold hold nodes ctl ctl wrapper
	how=$drawn
	case $how in
	hold | nodes) draw begin+300 begun+1 begun+3 gated+60 pinned+300 quiet+500 held+1000 thawing+1 thawing+3 begin+3000 ;;
	*) draw begin+1500 held+1000 copying+3000 copying+3000 suspended+100 suspended+500 thawing+3 begin+9000 ;;
	esac
	moment=$drawn
	draw unit unit restart thaw second second gap
	after=$drawn
	draw '' calm
	calm=$drawn
	draw 250 280 310 350 390 420 480
	mib=$drawn
	struck=() recovering=''
	rm -f /tmp/copying /tmp/ending
	[[ -n $DAEMON ]] || launch_and_wait
	exec 7<$LIFE
	while read -r _ <&7; do :; done
	storm_start
	id=$(domid)
	"begin_$how" >"$LOGS/migrate" 2>&1 &
	caller=$!
	wait_for_moment "$moment"
	kill_daemon
	[[ -z $calm ]] || touch /tmp/storm.stop
	"come_after_$after"
	exec 7<&-
	wait "$caller"
	storm_stop
	if [[ $after == thaw && $(journal) == */passing* ]]; then unit_thaws; fi
	[[ $how == hold || $how == nodes ]] || xl destroy "$GUEST--incoming" >/dev/null 2>&1
	emulator_lost_guest && return 1
	say "round $n: $how, $moment, $after${calm:+, the storm ends}: killed while ${struck[*]% *}; domain $id, now $(domid)"
	judge "$mib"
	emulator_lost_guest && return 1
	return 0
}

create_guest || { not_ok killed.setup "no guest"; return; }
learn
AGENT=
launch_and_wait
say "seed $seed"

declare -A bad=() table=() total=()
done_kills=0 n=1 late=0 killed_ms=0
while ((done_kills < kills)); do
	if ((done_kills * 2 >= kills)) && [[ -z $AGENT ]]; then
		AGENT=yes GUEST_READY='run_in_guest keep_agent'
		$GUEST_READY
		say "from now on there is an agent in the guest"
	fi
	round || continue
	n=$((n + 1))
	for hit in "${struck[@]}"; do
		table[$hit]=$((${table[$hit]:-0} + 1))
		total[${hit% *}]=$((${total[${hit% *}]:-0} + 1))
		done_kills=$((done_kills + 1))
	done
done
[[ -n $DAEMON ]] || launch_and_wait

say "$done_kills kills, by the state of the session that they hit, and who came after:"
say "$(printf '%-11s %5s %6s %8s %6s %7s %5s' state kills unit restart thaw second gap)"
for state in idle gating pinning settling held copying suspended thawing unguarded recovering recovered; do
	row=
	for after in unit restart thaw second gap; do row+=" ${table["$state $after"]:-0}"; done
	# shellcheck disable=SC2086 # a word each
	say "$(printf '%-11s %5s %6s %8s %6s %7s %5s' "$state" "${total[$state]:-0}" $row)"
done
# So many draws leave out none of those that last for some time.
if ((done_kills >= 50)); then
	missed=
	for state in pinning settling held copying suspended; do [[ -n ${total[$state]:-} ]] || missed+=" $state"; done
	check killed.spread "states that no kill has hit:${missed:- none}" test -z "$missed"
fi
fig killed.asked_too_late "$late of $((n - 1)) rounds"
check killed.frozen "guests left frozen or gated: ${bad[frozen]:-0}, after $done_kills kills" test "${bad[frozen]:-0}" -eq 0
check killed.capped "guests left capped: ${bad[capped]:-0}" test "${bad[capped]:-0}" -eq 0
check killed.target "targets lost: ${bad[target]:-0}" test "${bad[target]:-0}" -eq 0
check killed.memory "guests that did not run on: ${bad[memory]:-0}" test "${bad[memory]:-0}" -eq 0
