# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# The guest itself changes its p2m, by memory hotplug and by mapping grants: every change is seen, and a migration that
# met one is made again. Only PV guests have a p2m of their own. Also saves and restores a guest under the storm.
SIZE_MIB=256 BLOCK_KIB=$((128 * 1024))

# --- the guest --------------------------------------------------------------------------------------------------------

# A request to the guest (see guest/init); its answer is in $generation and $changes then.
ask() { # COMMAND…
	local token=$EPOCHREALTIME dir result
	dir=$(domain_dir)
	generation='' changes=''
	xenstore-write "$dir/control/layout" "$token $*" && xenstore-chmod "$dir/control/layout" n0 "r${dir##*/}" &&
		until_true 30 layout_answered || return
	read -r _ result generation changes < <(xenstore-read "$dir/data/layout")
	[[ $result == ok ]]
}
layout_answered() { [[ $(xenstore-read "$dir/data/layout" 2>/dev/null) == "$token "* ]]; }

# At its maximum the guest has no room in its p2m, and each "more" adds a block to it.
new_guest() { # MAXIMUM_MIB
	xl destroy "$GUEST" >/dev/null 2>&1
	export E2E_memory=$SIZE_MIB E2E_maxmem=$1
	reach=$((SIZE_MIB * 1024))
	create_guest || { not_ok "layout.setup" "no guest"; return 1; }
	learn
	[[ $TYPE == pv ]] || return 0
	ask count || { not_ok "layout.setup" "the guest cannot count: $(tail -n3 "/var/log/xen/guest-$GUEST.log")"; return 1; }
}
more() {
	reach=$((reach + BLOCK_KIB))
	ask hotplug $reach
}
map_grants() { ask grant 32; }

# --- every change is seen ---------------------------------------------------------------------------------------------

# The daemon's verdict, as "VERDICT REASON GENERATION CHANGES", with the changes since the baseline.
verdict() {
	p2mguardctl --json verdict "$GUEST" 2>>"$LOGS/ctl" | tee "$LOGS/verdict" |
		jq -r '"\(.verdict) \(.reason) \(.now.generation) \((.now.generation - .baseline.generation) / 2)"'
}

saw_it() { [[ $seen == "retry generation-changed $generation $made" ]] && ((made > 0 && generation % 2 == 0)); }

counted() {
	local before made seen='' total=0 n=0 change
	p2mguardctl begin --detached --policy attempts=10 "$GUEST" >/dev/null 2>>"$LOGS/ctl" || {
		not_ok layout.counted "no session: $(tail -n1 "$LOGS/ctl")"
		return
	}
	ask true
	check layout.counted.begin "the guest's own generation is $generation; the daemon: $(verdict)" \
		same "proceed unchanged $generation 0" "$(verdict)"
	for change in more map_grants more; do
		n=$((n + 1)) before=$changes
		$change || say "the guest could not: $change"
		made=$((changes - before)) seen=$(verdict)
		check "layout.counted.$n" "$change: the guest counts $made changes, generation $generation; the daemon: $seen" saw_it
		total=$((total + ${seen##* }))
		p2mguardctl retry "$GUEST" >/dev/null 2>>"$LOGS/ctl" || say "retry: $(tail -n1 "$LOGS/ctl")"
		check "layout.counted.again.$n" "held again: $(verdict)" same "proceed unchanged $generation 0" "$(verdict)"
	done
	p2mguardctl end "$GUEST" cancelled >/dev/null 2>>"$LOGS/ctl" || say "end: $(tail -n1 "$LOGS/ctl")"
	fig layout.counted "$total of $changes changes seen"
	check layout.counted.all "$total of $changes changes seen, at least 100 made" \
		test "$total" -eq "$changes" -a "$changes" -ge 100
	check layout.counted.restored "target, max_pages and permissions as before" as_libxl_makes_it $((SIZE_MIB * 1024))
}

# --- migrations -------------------------------------------------------------------------------------------------------

# A migration, and a change once the receiver has some of the guest; with the migration's exit status.
migration_meets() { # CHANGE MIGRATION…
	local change=$1 migration
	shift
	"$@" &
	migration=$!
	until_true 60 copying_or_over
	$change || say "the guest could not: $change"
	wait "$migration"
}
copying_or_over() {
	local id
	! kill -0 "$migration" 2>/dev/null ||
		{ id=$(xl domid "$GUEST--incoming" 2>/dev/null) && (($(domstat "$id" | cut -d' ' -f1) >= 32 * 1024)); }
}
receiver_is_gone() { ! xl domid "$GUEST--incoming" >/dev/null 2>&1; }

unguarded() {
	local try status
	for try in 1 2 3; do
		status=0
		migration_meets more migrate_plain || status=$?
		((status == 0)) || break
		say "try $try: migrated, the change came too late"
	done
	fig layout.unguarded "$(grep -m1 -o 'p2m generation.*' "$LOGS/migrate" || why_failed "$LOGS/migrate")"
	check layout.unguarded.fails "memory is added during an unguarded migration: exit $status" test $status -ne 0
	until_true 30 receiver_is_gone || xl destroy "$GUEST--incoming"
	check layout.unguarded.memory "the guest runs where it was, and its memory is intact" guest_memory_ok
}

guarded() { # NAME CHANGE
	local name=layout.guarded.$1 before status=0 first
	before=$(domid)
	migration_meets "$2" migrate_guarded 3 || status=$?
	first=$(field '.attempts[0] | "\(.verdict) \(.reason)"')
	check "$name.first" "the first attempt: $first" same 'retry generation-changed' "$first"
	if ((status == 0)) && [[ $(domid) != "$before" ]]; then
		ok "$name" "migrated at attempt $(field '.attempts | length'), after $(field '[.attempts[].command_ms] | @text') ms"
	else
		not_ok "$name" "exit $status: $(why_failed "$LOGS/migrate")"
		tail -n 8 "$LOGS/migrate" "$LOGS/daemon"
	fi
	check "$name.restored" "target, max_pages and permissions as before" as_libxl_makes_it $((SIZE_MIB * 1024))
	check "$name.memory" "the guest runs and its memory is intact" guest_memory_ok
}

# --- save and restore -------------------------------------------------------------------------------------------------

save() { # NAME
	local name=layout.save.$1 status=0 target command
	migrate_guarded 3 timeout 120 xl save "$GUEST" /tmp/saved/guest || status=$?
	storm_stop
	check "$name" "exit $status, held after $(field .held_after_ms) ms, $(stat -c %s /tmp/saved/guest) bytes" \
		test $status -eq 0
	check "$name.restores" "xl restore" xl restore /tmp/saved/guest
	rm -f /tmp/saved/guest
	check "$name.memory" "the guest runs and its memory is intact" guest_memory_ok
	# What was asked for meanwhile is for the caller to apply, wherever the guest is restored.
	target=$(field '.deferred_target_kib // empty') command=$(field '.deferred_command // empty')
	if [[ -n $target ]]; then
		check "$name.named" "p2mguardctl names the command for it: $command" same "xl mem-set $GUEST ${target}k" "$command"
		$command
	fi
	check "$name.target" "the guest has what the toolstack last asked for: ${target:-nothing}" \
		as_libxl_makes_it "${target:-$((SIZE_MIB * 1024))}"
	check "$name.follows" "it goes there" until_true 60 settled
}

# The last target may have been asked of a domain that xl was removing already, where nobody can see it.
asked_lately() { tail -n 2 /tmp/storm.accepted | awk '{print $5}' | grep -qx "$(field .deferred_target_kib)"; }

new_guest $SIZE_MIB || return
start_daemon || { not_ok layout.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }
if [[ $TYPE == pv ]]; then
	counted
	unguarded
	guarded hotplug more
	new_guest $SIZE_MIB || return # the first mapping of grants is the one that changes the p2m
	guarded grants map_grants
else
	skip layout.counted "the p2m of these guests is the hypervisor's"
fi

new_guest 512 || return
mkdir -p /tmp/saved && mount -t tmpfs -o size=640m tmpfs /tmp/saved # half of dom0's memory would be the default
save quiet
storm_start
save storm
check layout.save.storm.deferred "the storm's last target while held: $(field .deferred_target_kib) KiB" asked_lately
umount /tmp/saved
