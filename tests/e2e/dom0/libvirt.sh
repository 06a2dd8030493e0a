# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# libvirt's libxl driver migrates the guest, with LIBXL_SAVE_HELPER in libvirtd's environment: nothing else is changed.
#
# Both ends are on this host: two libvirtds, each with folders of its own, which are mounted where it looks for them. A
# guest that is called GUEST--incoming at its destination gets its name back afterwards, as with xl; libvirt does not
# mind, for it knows guests by their domids.
rounds=${E2E_libvirt:-10} deaths=${E2E_libvirt_deaths:-5}
# What libvirt has been asked for is all there is. Only for a large guest unguarded migrations take long enough to fail.
export E2E_memory=900 E2E_maxmem=900
# shellcheck disable=SC2034 # storm_start uses it
STORM_MIB=(500 800 400 700 450)
FOLDERS=(etc/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt run/libvirt)
BASE=/tmp/libvirt

# --- two libvirts -------------------------------------------------------------------------------------------------------

declare -A LIBVIRTD=()
uri() { echo "xen+unix:///system?socket=$BASE/$1/sock/libvirt-sock"; }
on() { virsh -q -c "$(uri "$1")" "${@:2}"; } # a|b COMMAND…
libvirtd_answers() { on "$1" version >/dev/null 2>&1; }

libvirt_start() { # a|b [VARIABLE=VALUE…]
	local base=$BASE/$1 folder mounts=
	for folder in "${FOLDERS[@]}"; do
		mkdir -p "$base/$folder" "/$folder"
		mounts+="mount --bind $base/$folder /$folder && "
	done
	mkdir -p "$base/sock"
	[[ -e $base/etc/libvirt/libvirtd.conf ]] || cat >"$base/etc/libvirt/libvirtd.conf" <<-CONFIG
		unix_sock_dir = "$base/sock"
		auth_unix_ro = "none"
		auth_unix_rw = "none"
		host_uuid = "$(</proc/sys/kernel/random/uuid)"
		log_outputs = "3:stderr"
	CONFIG
	env "${@:2}" unshare -m sh -c "$mounts exec libvirtd --pid-file $base/pid" >>"$LOGS/libvirtd-$1" 2>&1 </dev/null &
	LIBVIRTD[$1]=$!
	until_true 60 libvirtd_answers "$1" || { tail -n 10 "$LOGS/libvirtd-$1" && return 1; }
}
libvirt_stop() { # a|b
	[[ -n ${LIBVIRTD[$1]:-} ]] || return 0
	kill "${LIBVIRTD[$1]}" 2>/dev/null
	wait "${LIBVIRTD[$1]}" 2>/dev/null
	LIBVIRTD[$1]=
}
libvirts_start() { libvirt_start a "$@" && libvirt_start b "$@"; }
libvirts_stop() { libvirt_stop a && libvirt_stop b; }
# shellcheck disable=SC2034 # clean_up uses it
AT_END=libvirts_stop

# --- the guest ----------------------------------------------------------------------------------------------------------

# FROM has it, TO is where it goes next, and FROM calls it NAME.
launch_guest() {
	local os="<type arch='x86_64' machine='xenpv'>linux</type>"
	[[ $TYPE == pv ]] || os="<type arch='x86_64' machine='xenpvh'>xenpvh</type>"
	FROM=a TO=b NAME=$GUEST
	cat >/tmp/guest.xml <<-XML
		<domain type='xen'>
		  <name>$GUEST</name>
		  <uuid>$(</proc/sys/kernel/random/uuid)</uuid>
		  <memory unit='MiB'>${E2E_maxmem:-512}</memory>
		  <currentMemory unit='MiB'>${E2E_memory:-256}</currentMemory>
		  <vcpu>1</vcpu>
		  <os>
		    $os
		    <kernel>/guest/vmlinuz</kernel>
		    <initrd>/guest/image.gz</initrd>
		    <cmdline>console=hvc0 quiet</cmdline>
		  </os>
		  <on_reboot>destroy</on_reboot>
		  <on_crash>destroy</on_crash>
		  <devices>
		    <console type='pty'><target type='xen' port='0'/></console>
		  </devices>
		</domain>
	XML
	on a create /tmp/guest.xml
}

OPTIONS=(--live)
virsh_migrate() {
	timeout 240 virsh -q -c "$(uri "$FROM")" migrate "${OPTIONS[@]}" "$NAME" "$(uri "$TO")" tcp://127.0.0.1 \
		--dname "$GUEST--incoming" >>"$LOGS/migrate" 2>&1
}
move() {
	local other=$FROM start status=0
	: >"$LOGS/migrate"
	: >"$(libxl_log a)"
	: >"$(libxl_log b)"
	start=$(now_ms)
	virsh_migrate || status=$?
	took=$(($(now_ms) - start))
	((status == 0)) || return
	xl rename "$GUEST--incoming" "$GUEST" || return
	FROM=$TO TO=$other NAME=$GUEST--incoming
}
libxl_log() { echo "$BASE/$1/var/log/libvirt/libxl/libxl-driver.log"; } # a|b
why_libxl_failed() { # in the words of libxl at the source, or else at the destination
	local log
	for log in "$(libxl_log "$FROM")" "$(libxl_log "$TO")"; do
		sed -n 's/^[^ ]* [^ ]* \(xc: \|\)\(\(Failed\|Mapping\|p2mguard:\) .*\)/\2/p' "$log" | head -n1 | cut -c1-160 | grep . && return
	done
}

# The new domain's target is what libvirt was asked for, unless xl has been asked for another one since.
arrived_as_asked() { # NAME
	as_libxl_makes_it "$((E2E_memory * 1024))" >/dev/null || as_libxl_makes_it "$(</tmp/storm.last)" ||
		not_ok "$1.restored" "neither as libvirt was asked, nor as xl was"
	guest_memory_ok || not_ok "$1.memory" "the guest does not run, or its memory is not what it was"
}

hostname p2mguard-test
libvirts_start || { not_ok libvirt.setup "libvirtd does not answer"; return; }
create_guest || { not_ok libvirt.setup "no guest"; return; }
learn
start_daemon || { not_ok libvirt.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }
say "$(on a version | tr '\n' ' ')"

# --- libvirt as it is ---------------------------------------------------------------------------------------------------

check libvirt.quiet_stock "a migration that nobody disturbs, unguarded" move
failed=0 n=1
while ((n <= rounds)); do
	storm_start
	status=0
	move || status=$?
	storm_stop
	emulator_lost_guest && continue
	say "unguarded $n: exit $status after $took ms: $( ((status == 0)) || why_libxl_failed)"
	((status == 0)) || failed=$((failed + 1))
	n=$((n + 1))
done
# libvirt is slow to begin, and the guest may be at rest for just long enough: a figure, and no check.
fig libvirt.unguarded_failed "$failed of $rounds"

# --- one line changed ---------------------------------------------------------------------------------------------------

settle_by_itself
libvirts_stop
libvirts_start "LIBXL_SAVE_HELPER=$WRAPPER" || { not_ok libvirt.setup "libvirtd does not answer"; return; }
check libvirt.quiet "a migration that nobody disturbs, guarded" move
fig libvirt.quiet_ms "$took"

migrated=0 n=1 tries=() times=()
while ((n <= rounds)); do
	storm_start
	before=$(domid) lost='' try=0 status=1
	while ((status != 0 && try < 2)); do
		try=$((try + 1)) status=0
		move || status=$?
		times+=("$took")
		if lost_unseen || { ((status != 0)) && dom0_stood_still "$(libxl_log "$FROM")"; }; then lost=yes && break; fi
		((status == 0)) || say "guarded $n, try $try: exit $status after $took ms: $(why_libxl_failed)"
	done
	storm_stop
	until_true 10 journal_is_empty
	if emulator_lost_guest || [[ -n $lost ]]; then continue; fi
	tries+=("$try")
	if [[ $(domid) != "$before" ]]; then
		migrated=$((migrated + 1))
	else
		tail -n 8 "$(libxl_log a)" "$(libxl_log b)" "$LOGS/daemon"
	fi
	arrived_as_asked "libvirt.storm.$n"
	n=$((n + 1))
done
fig libvirt.tries "${tries[*]}"
fig libvirt.command_ms "${times[*]}"
check libvirt.migrated "under the storm $migrated of $rounds migrated within two tries" test "$migrated" -eq "$rounds"

# libvirt takes no wishes while it migrates, but the guest may be on its way to the last one.
for ((n = 1; n <= deaths; n++)); do
	on "$FROM" setmem "$NAME" "${E2E_memory}M" && settle_by_itself
	on "$FROM" setmem "$NAME" 300M
	shrinking=$(($(tot_kib) / 1024))
	status=0
	move || status=$?
	emulator_lost_guest && continue
	check "libvirt.shrinking.$n" "asked for 300 MiB and migrated at once, at $shrinking MiB: exit $status after $took ms" test "$status" -eq 0
	guest_memory_ok || not_ok "libvirt.shrinking.memory.$n" "the guest does not run, or its memory is not what it was"
done
on "$FROM" setmem "$NAME" "${E2E_memory}M"

# --- somebody dies -------------------------------------------------------------------------------------------------------

helper_is_libvirts() {
	local pid parent
	read -r pid caller < <(p2mguardctl --json list | jq -r '.[0].owner | "\(.pid) \(.caller)"')
	parent=$(awk '$1 == "PPid:" {print $2}' "/proc/$pid/status")
	[[ $caller == save-helper && $parent == "${LIBVIRTD[$FROM]}" ]]
}

death() { # NAME COMMAND: the command kills somebody in the middle of a migration
	local in_time=0 owned=0 n=1 times=() start ms id moving
	while ((n <= deaths)); do
		settle_by_itself
		: >"$LOGS/migrate"
		id=$(domid)
		virsh_migrate &
		moving=$!
		until_true 60 copying || say "$1 $n: not seen copying"
		! helper_is_libvirts || owned=$((owned + 1))
		$2
		start=$(now_ms)
		until_true 30 journal_is_empty
		ms=$(($(now_ms) - start))
		wait "$moving" 2>/dev/null
		[[ -e /proc/${LIBVIRTD[a]}/exe ]] || libvirt_start a "LIBXL_SAVE_HELPER=$WRAPPER"
		[[ -e /proc/${LIBVIRTD[b]}/exe ]] || libvirt_start b "LIBXL_SAVE_HELPER=$WRAPPER"
		xl destroy "$GUEST--incoming" >/dev/null 2>&1
		emulator_lost_guest && continue
		times+=("$ms")
		if ((ms <= 2000)) && same "$id" "$(domid)" && runs_as_before "$id" && same "$id" "$(on "$FROM" domid "$NAME")"; then
			in_time=$((in_time + 1))
		fi
		n=$((n + 1))
	done
	fig "libvirt.$1.thawed_ms" "${times[*]}"
	check "libvirt.$1" "thawed and running within 2000 ms $in_time of $deaths times; libvirt has found it again" \
		test "$in_time" -eq "$deaths"
	check "libvirt.$1.owner" "the session was that of libvirtd's helper $owned of $deaths times" test "$owned" -eq "$deaths"
}
kill_source() { kill -9 "${LIBVIRTD[$FROM]}"; }
kill_destination() {
	kill -9 "${LIBVIRTD[$TO]}"
	kill_all ' --restore-domain '
}
death source_killed kill_source
death destination_killed kill_destination

# Peer to peer libvirtd goes on without the client. (Otherwise the client is what directs the migration, and libvirt leaves
# two guests that do not run when it is killed, guarded or not.)
runs_there() { incoming=$(xl domid "$GUEST--incoming" 2>/dev/null) && runs_here "$incoming" && ! xl domid "$GUEST" >/dev/null 2>&1; }
ended() { runs_there || ! xl domid "$GUEST--incoming" >/dev/null 2>&1; }
settle_by_itself
: >"$(libxl_log a)"
: >"$(libxl_log b)"
id=$(domid)
OPTIONS+=(--p2p)
virsh_migrate &
moving=$!
until_true 60 copying || say "not seen copying"
kill_all 'virsh -q'
wait "$moving" 2>/dev/null
until_true 60 ended
if ! runs_there || ! xl rename "$GUEST--incoming" "$GUEST"; then
	say "it did not move: $(why_libxl_failed)"
	tail -n 8 "$(libxl_log a)" "$(libxl_log b)" "$LOGS/libvirtd-$FROM" "$LOGS/daemon"
fi
fig libvirt.p2p_client_killed "it was domain $id, and is domain $(domid)"
check libvirt.p2p_client_killed "the guest runs" guest_memory_ok
# A try that p2mguard refused is held for its grace, 30 s.
check libvirt.p2p_journal "the session is over" until_true 40 journal_is_empty
