# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# What is seen of a guest at rest: its p2m as Xen's own tools see it, and a thousand verdicts without a false alarm.

create_guest || { not_ok look.setup "no guest"; return; }
learn
start_daemon || { not_ok look.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }
id=$(domid)

p2m() { jq -r ".p2m.$1" /tmp/domain; }
p2mguardctl domain --json "$GUEST" >/tmp/domain

# xen-mfndump maps the p2m with libxenguest's own walk, and prints the pfns that have a frame, with what the p2m says of each.
compare_p2m() {
	xen-mfndump dump-p2m "$id" >/tmp/mfndump 2>"$LOGS/mfndump" || return
	size=$(sed -n 's/.*P2M size: = \([0-9]*\).*/\1/p' /tmp/mfndump)
	sed -n 's/.*pfn=0x\([0-9a-f]*\) ==> mfn=0x\([0-9a-f]*\).*/\1 \2/p' /tmp/mfndump >/tmp/theirs
	p2mwalk "$id" "$size" >/tmp/ours || return
	awk 'NR == FNR {ours[$1] = $2; next} ours[$1] "" != $2 "" {bad++; if (bad == 1) print "pfn", $1, "ours", ours[$1], "theirs", $2}
		END {print FNR, bad + 0 >"/tmp/compared"; exit bad > 0}' /tmp/ours /tmp/theirs
}

if [[ $TYPE == pv ]]; then
	check look.kind "kind $(p2m kind), $(p2m width_bits) bits, $(p2m levels) levels, root $(p2m root_mfn), generation $(p2m generation), max_pfn $(p2m max_pfn)" \
		same "list 64 4" "$(p2m kind) $(p2m width_bits) $(p2m levels)"
	fig look.structure_pages "$(p2m structure_pages)"
	if compare_p2m; then
		read -r compared _ </tmp/compared
		check look.p2m "the walker's list of p2m pages is libxenguest's: $compared pfns of $size compared" \
			test "$compared" -ge $((${E2E_memory:-256} * 256))
	else
		not_ok look.p2m "differs from xen-mfndump: $(cat /tmp/compared "$LOGS/mfndump" 2>/dev/null | tail -n 2)"
	fi
else
	check look.kind "no p2m of the guest's own is shown" same null "$(jq -r .p2m /tmp/domain)"
fi
fig look.dom0 "$(p2mguardctl domain --json 0 2>&1 | jq -c '.p2m | {kind, structure_pages, problem}' 2>&1)"

# What a verdict rests on, each kind of guest its own.
figures_are_known() {
	local known='.generation != null and .structure != null and .physmap == null'
	[[ $TYPE == pv ]] || known='.generation == null and .structure == null and .physmap.highest_kib > 0'
	p2mguardctl show --json "$session" | jq -e ".baseline | $known" >/dev/null
}
session=$(p2mguardctl begin --detached "$GUEST" 2>>"$LOGS/ctl") || not_ok look.begin "no session: $(tail -n1 "$LOGS/ctl")"
read -r proceed other each_us < <(verdicts "$session" 1000 2>"$LOGS/verdicts")
fig look.verdict_us "$each_us"
check look.quiet "1000 verdicts over a quiet guest: $proceed proceed, $other not $(head -c 300 "$LOGS/verdicts")" \
	same "1000 0" "$proceed $other"
check look.figures "baseline and present: $(p2mguardctl show --json "$session" | jq -c '.baseline | del(.time_ms)')" \
	figures_are_known
check look.changes "changes counted by the daemon: $(p2mguardctl show --json "$session" | jq -c '[.changes, .generation_changes]')" \
	same '[0,0]' "$(p2mguardctl show --json "$session" | jq -c '[.changes, .generation_changes]')"
p2mguardctl end "$session" cancelled >/dev/null
check look.restored "as libxl makes it" as_libxl_makes_it "$((${E2E_memory:-256} * 1024))"

# What became of the session, and what doctor says of a host on which all of this has just worked.
p2mguardctl timeline "$session" >/tmp/timeline 2>&1
check look.timeline "$(grep -c . /tmp/timeline) lines: $(tail -n 1 /tmp/timeline)" grep -q held /tmp/timeline
p2mguardctl doctor --json >/tmp/doctor 2>>"$LOGS/ctl"
findings() { jq -r ".[] | select(.status == \"$1\") | .check" /tmp/doctor | tr '\n' ' '; }
fig look.doctor "ok: $(findings ok); warning: $(findings warning); skipped: $(findings skipped)"
check look.doctor.failed "nothing has failed: $(jq -c '.[] | select(.status == "failed")' /tmp/doctor)" same '' "$(findings failed)"
is() { jq -e ".[] | select(.check == \"$1\") | .status == \"$2\"" /tmp/doctor >/dev/null; }
finds() { check "look.doctor.$1" "$2: $(jq -r ".[] | select(.check == \"$1\") | .found" /tmp/doctor)" is "$1" "$2"; }
for one in dom0 privcmd hypervisor xen-version xenstored store-write daemon guests targets p2m; do
	finds "$one" ok
done
# Debian's hypervisor has no shadow paging, and could not migrate a PV guest: the host of the others has it.
case $TYPE in
pv) finds log-dirty ok ;;
*) finds log-dirty warning ;;
esac
