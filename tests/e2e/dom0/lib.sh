# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What the scenarios share. Runs in dom0.
#
# Lines that begin with "@@" are for the program that watches the console (tests/e2e/run):
#   @@ ok NAME DETAIL    @@ not ok NAME DETAIL    @@ skip NAME REASON    @@ fig NAME VALUE    @@ say TEXT    @@ end
#   @@ scenario NAME     @@ again NAME: none of what was said since "@@ scenario NAME" counts

TYPE=${E2E_type:-pvh}
STORE=${E2E_store:-c}
GUEST=u
RECEIVE=/tmp/receive
LOGS=/tmp/logs
mkdir -p $LOGS

say() { echo "@@ say $*"; }
ok() { echo "@@ ok $TYPE.$1 ${*:2}"; }
not_ok() {
	echo "@@ not ok $TYPE.$1 ${*:2}"
	touch /tmp/failed
	# Whoever takes note of it later does not know what it has spoilt.
	if lost_unseen; then touch /tmp/lost-unseen; fi
}
skip() { echo "@@ skip $TYPE.$1 ${*:2}"; }
fig() { echo "@@ fig $TYPE.$1 ${*:2}"; }
check() { # NAME DETAIL COMMAND…: one result
	if "${@:3}"; then ok "$1" "$2"; else not_ok "$1" "$2"; fi
}
same() { [[ $1 == "$2" ]]; }
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

until_true() { # SECONDS COMMAND…: polls, 20 times a second, or every POLL_S
	local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
	shift
	until "$@"; do
		((${EPOCHREALTIME/./} < deadline)) || return 1
		sleep "${POLL_S:-0.05}"
	done
}

median() { # NUMBER…
	printf '%s\n' "$@" | sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'
}

# Of the arrays plain and guarded, measured in turn: the emulation's speed drifts, by less within a pair.
# shellcheck disable=SC2154
pair_ratios() {
	local i
	for ((i = 0; i < ${#plain[@]}; i++)); do
		awk "BEGIN {printf \"%.3f\\n\", ${guarded[i]} / ${plain[i]}}"
	done
}

# --- services ---------------------------------------------------------------------------------------------------------

store_answers() { xenstore-exists / 2>/dev/null; }
start_store() {
	case $STORE in
	c) xenstored --pid-file /run/xenstored.pid ;;
	ocaml) oxenstored --config-file=/etc/xen/oxenstored.conf --pid-file=/run/xenstored.pid ;;
	esac
	until_true 10 store_answers || say "xenstored does not answer"
}

daemon_answers() { p2mguardctl info >/dev/null 2>&1; }
start_daemon() {
	p2mguardd >>$LOGS/daemon 2>&1 &
	DAEMON=$!
	until_true 10 daemon_answers
}
# SIGTERM lets every guest go and ends with status 0; a daemon that crashed meanwhile shows here as well.
stop_daemon() {
	[[ -n ${DAEMON:-} ]] || return 0
	local status=0
	kill "$DAEMON" 2>/dev/null
	wait "$DAEMON" 2>/dev/null || status=$?
	DAEMON=
	check "$SCENARIO.daemon_exit" "the daemon ended with status $status" test $status -eq 0
	((status == 0)) || tail -n 5 "$LOGS/daemon"
}

# --- the guest --------------------------------------------------------------------------------------------------------

domid() { xl domid $GUEST 2>/dev/null; }
domain_dir() { echo "/local/domain/$(domid)"; }
target_kib() { xenstore-read "$(domain_dir)/memory/target"; }
tot_kib() { domstat "$(domid)" | cut -d' ' -f1; }
max_kib() { domstat "$(domid)" | cut -d' ' -f2; }
guest_is_up() { grep -q 'guest is up' /var/log/xen/guest-$GUEST.log 2>/dev/null; }

# memory and everything below it, each with its value and permissions
memory_nodes() { xenstore-ls -fp "$(domain_dir)" | grep "^$(domain_dir)/memory\b"; }

# NODE PERMISSIONS, the domid taken out: a guest has another one after each migration.
permissions() {
	local id
	id=$(domid)
	memory_nodes | sed -n "s|^/local/domain/$id/\([^ ]*\) = .*(\(.*\))\$|\1 \2|p" | sed "s/\([nrwb]\)$id\b/\1DOMID/g" | LC_ALL=C sort
}

# Everything a session may touch, for a comparison byte for byte.
whole_state() {
	memory_nodes
	echo "max_kib $(max_kib)"
}

# A request to the guest (see guest/init): ok or not, and what it printed in $text.
# shellcheck disable=SC2034 # the scenarios use it
run_in_guest() { # COMMAND…
	local token=$EPOCHREALTIME dir result
	text=''
	dir=$(domain_dir)
	xenstore-write "$dir/control/run" "$token $*" && xenstore-chmod "$dir/control/run" n0 "r${dir##*/}" &&
		until_true 30 guest_has_run || return
	read -r _ result text < <(xenstore-read "$dir/data/run")
	[[ $result == ok ]]
}
guest_has_run() { [[ $(xenstore-read "$dir/data/run" 2>/dev/null) == "$token "* ]]; }

# How a guest is started; scenarios with another toolstack have their own.
launch_guest() {
	cat >/tmp/guest.cfg <<-CONFIG
		name = "$GUEST"
		type = "$TYPE"
		kernel = "/guest/vmlinuz"
		ramdisk = "/guest/image.gz"
		extra = "console=hvc0 quiet"
		memory = ${E2E_memory:-256}
		maxmem = ${E2E_maxmem:-512}
		vcpus = 1
		on_reboot = "destroy"
		on_crash = "destroy"
	CONFIG
	xl create /tmp/guest.cfg
}

# A scenario may set GUEST_READY to what is to be done with each new guest.
create_guest() {
	local try
	! lost_unseen || touch /tmp/lost-unseen
	for try in 1 2 3 4 5 6 7 8; do
		rm -f /var/log/xen/guest-$GUEST.log
		launch_guest >$LOGS/create 2>&1 || { say "no guest: $(tail -n1 $LOGS/create)"; return 1; }
		until_true 60 guest_is_up_or_lost
		# What the emulator lost at boot is no loss later on.
		guests_lost >/tmp/lost
		if guest_is_up; then
			until_true 10 settled
			${GUEST_READY:-true}
			return
		fi
		# Nothing of ours has touched it yet.
		say "guest number $try did not boot: $(domid >/dev/null && echo "it hangs" || echo "the emulator lost it");" \
			"its last words: $(tail -n1 /var/log/xen/guest-$GUEST.log 2>/dev/null)"
		xl destroy $GUEST >/dev/null 2>&1
	done
	return 1
}
guest_is_up_or_lost() { guest_is_up || ! domid >/dev/null; }

# A scenario may set AT_END to what is to be done when it has ended, however it ends.
clean_up() {
	storm_stop
	${AT_END:-true}
	stop_daemon
	while read -r id; do [[ $id == 0 ]] || xl destroy "$id"; done < <(xl list | awk 'NR > 1 {print $2}')
	rm -f /tmp/storm.*
}

# The guest is where it should be: tot_pages and target differ by what they always differ by (see learn).
settled() {
	local target
	[[ -n ${OFFSET_KIB:-} ]] || return 0
	target=$(target_kib) || return
	(($(tot_kib) - target == OFFSET_KIB))
}

# What libxl makes of a guest, learned from a guest that nobody but libxl has touched.
learn() {
	local tot last target max
	while :; do
		tot=0
		until last=$tot; tot=$(tot_kib); [[ $tot == "$last" ]]; do sleep 0.5; done
		target=$(target_kib) max=$(max_kib)
		PERMISSIONS=$(permissions)
		emulator_lost_guest || break
	done
	OFFSET_KIB=$((tot - target))
	EXTRA_KIB=$((max - target))
}

# The guest runs, and its memory is what it was before it was moved.
guest_answers() { [[ $(xenstore-read "$(domain_dir)/data/checked" 2>/dev/null) == "$token "* ]]; }
guest_memory_ok() {
	local token=$EPOCHREALTIME dir id
	id=$(domid) || return 1
	dir=/local/domain/$id
	xenstore-write "$dir/control/check" "$token" && xenstore-chmod "$dir/control/check" n0 "r$id"
	until_true 20 guest_answers && [[ $(xenstore-read "$dir/data/checked") == "$token ok" ]]
}

# Two levels of virtualization under emulation are not perfect: now and then QEMU makes the guest triple-fault. That
# is no failed migration, and Xen's log tells the two apart.
guests_lost() { xl dmesg | grep -c 'Triple fault'; }
lost_unseen() { # whether one was lost that no scenario has taken note of
	[[ -e /tmp/lost-unseen ]] || (($(guests_lost) > $(</tmp/lost)))
}
emulator_lost_guest() { # true once for each guest so lost; there is a new one then
	local lost
	lost=$(guests_lost)
	((lost > $(</tmp/lost))) || return 1
	echo "$lost" >/tmp/lost
	echo x >>/tmp/migrations-lost
	say "the emulator lost the guest (Xen's log has the triple fault): this one does not count, starting another guest"
	xl destroy $GUEST >/dev/null 2>&1
	xl destroy $GUEST--incoming >/dev/null 2>&1
	lost=$(wc -l </tmp/migrations-lost)
	((lost <= 10)) || { not_ok emulator "lost $lost guests in migrations, too many to go on"; exit 0; }
	create_guest
}

# An emulated dom0 may stand still for longer than max_gap_ms, and the daemon is right when it refuses then: it says
# nothing about the guest. Borne with twice a scenario.
STALLS=0
dom0_stood_still() { # LOG: of the try that failed
	((STALLS < 2)) && grep -qs 'nobody watched the guest' "$1" || return
	STALLS=$((STALLS + 1))
	say "dom0 stood still for too long; once more"
}

does_not_count() { # STATUS: whether a guarded migration that ended so says nothing of p2mguard
	emulator_lost_guest || { (($1 != 0)) && dom0_stood_still "$LOGS/migrate"; }
}

# --- the storm --------------------------------------------------------------------------------------------------------

# Scenarios with another toolstack have their own.
mem_set() { xl mem-set $GUEST "${1}m"; } # MIB
STORM_MIB=(300 250 400 260 500)

# A toolstack that gives the guest another target twice a second. The last one it accepted is in /tmp/storm.last.
storm_start() { # returns when it is under way
	rm -f /tmp/storm.*
	{
		while :; do
			for mib in "${STORM_MIB[@]}"; do
				[[ ! -e /tmp/storm.stop ]] || exit 0
				start=$(now_ms) of=$(domid)
				if mem_set "$mib" >>$LOGS/storm 2>&1; then
					echo $((mib * 1024)) >/tmp/storm.last
					echo "$start to $(now_ms) ms: $((mib * 1024)) KiB, of domain $of" >>/tmp/storm.accepted
				fi
				sleep 0.5
			done
		done
	} &
	STORM=$!
	until_true 20 storm_blows || say "no target was accepted"
}
# Whether the last target was asked of a domain that the guest has left since: xl looks the name up first, and writes to a
# domain that may be on its way out.
asked_of_domain_left() {
	local of
	of=$(tail -n1 /tmp/storm.accepted)
	[[ ${of##* } != "$(domid)" ]]
}
storm_blows() { (($(wc -l 2>/dev/null </tmp/storm.accepted || echo 0) >= 2)); }
# Returns when the last mem-set has been carried out.
storm_stop() {
	[[ -n ${STORM:-} ]] || return 0
	touch /tmp/storm.stop
	wait "$STORM" 2>/dev/null
	STORM=
}

# --- migrations -------------------------------------------------------------------------------------------------------

# In a session of its own, for no signal to the sender's side reaches another host.
receiver() { # COMMAND: what the receiving host does with the stream
	printf '#!/usr/bin/bash\nexec setsid %s\n' "$1" >$RECEIVE
	chmod +x $RECEIVE
}
receiver 'xl migrate-receive'

# The COMMAND of every migration, guarded or not: times itself, and follows the domain with our own eyes meanwhile.
# Appends its run time to /tmp/times, leaves what it saw in /tmp/followed. Told to stop, it ends when xl has ended.
cat >/tmp/migrate <<-COMMAND
	#!/usr/bin/bash
	trap : TERM
	domstat follow \$(xl domid $GUEST) >/tmp/followed &
	start=\$((\${EPOCHREALTIME/./} / 1000))
	timeout 240 xl migrate -s "" $GUEST $RECEIVE 2>&1
	status=\$?
	echo \$((\${EPOCHREALTIME/./} / 1000 - start)) >>/tmp/times
	kill %1 2>/dev/null
	exit \$status
COMMAND
chmod +x /tmp/migrate
sizes_seen() { cut -d' ' -f2 /tmp/followed | sort -u | wc -l; }
nothing_moved() { [[ $(sizes_seen) == 1 && $(field .changes) == 0 ]]; }
why_failed() { grep -m1 -iE 'error|fail' "$1" | cut -c1-160; }
field() { jq -r "$1" /tmp/summary 2>/dev/null; }

forget_last() {
	echo 0 >/tmp/times # in case there will be no run at all
	: >/tmp/followed
	: >/tmp/summary
}

migrate_plain() {
	forget_last
	/tmp/migrate >$LOGS/migrate 2>&1
}
migrate_guarded() { # ATTEMPTS [COMMAND…]
	local attempts=$1
	shift
	(($#)) || set -- /tmp/migrate
	forget_last
	p2mguardctl migrate --json --attempts "$attempts" $GUEST -- "$@" >$LOGS/guarded.out 2>$LOGS/migrate
	local status=$?
	tail -n1 $LOGS/guarded.out >/tmp/summary
	return $status
}

# --- the save helper ------------------------------------------------------------------------------------------------

# shellcheck disable=SC2034 # the scenarios use it
WRAPPER=/usr/libexec/p2mguard/save-helper
settle_by_itself() { until_true 60 settled; }
journal_is_empty() { [[ -z $(xenstore-ls -f /tool/p2mguard/session 2>/dev/null) ]]; }
held() { p2mguardctl --json list | jq -e '.[0].state == "held"' >/dev/null 2>&1; }
copying() { xl domid "$GUEST--incoming" >/dev/null 2>&1 && held; }
runs_here() { xl list "$1" 2>/dev/null | awk 'NR > 1 {exit $5 !~ /^[rb-]/}'; } # DOMID
runs_as_before() { runs_here "$1" && [[ $(permissions) == "$PERMISSIONS" ]] && guest_memory_ok; } # DOMID

kill_all() { # WORDS: whoever has them in his command line
	local file words
	for file in /proc/[0-9]*/cmdline; do
		words=() # it may have ended by now
		mapfile -d '' words 2>/dev/null <"$file"
		if [[ ${words[*]} == *"$1"* ]]; then
			file=${file#/proc/}
			kill -9 "${file%/cmdline}"
		fi
	done
}

# The guest, wherever it is now, has what libxl would have given it: MAX_KIB and the permissions; and this target.
as_libxl_makes_it() { # TARGET_KIB
	local state
	state="target $(target_kib) max $(max_kib) $(permissions | tr '\n' ' ')"
	[[ $state == "target $1 max $(($1 + EXTRA_KIB)) $(tr '\n' ' ' <<<"$PERMISSIONS")" ]] || {
		say "expected: target $1 max $(($1 + EXTRA_KIB)) $(tr '\n' ' ' <<<"$PERMISSIONS")"
		say "found:    $state"
		tail -n 3 /tmp/storm.accepted 2>/dev/null | while read -r line; do say "accepted: $line"; done
		return 1
	}
}
