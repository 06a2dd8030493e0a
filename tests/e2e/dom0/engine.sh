# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# A migration engine that is not libxl's, guarded through libp2mguard's precopy policy.
text='' # what run_in_guest brings
create_guest || { not_ok engine.setup "no guest"; return; }
learn
start_daemon || { not_ok engine.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }
at_its_target() { as_libxl_makes_it "$((${E2E_memory:-256} * 1024))"; }
is_restored() { until_true 10 at_its_target; }

# Slowly, so that there is time for the guest to change: some MiB, and a moment.
trickle() { while head -c 8388608 | wc -c | grep -qv '^0$'; do sleep 0.1; done; }

bytes=$(engine "$(domid)" 2>"$LOGS/engine" | wc -c)
said=$(tail -n1 "$LOGS/engine")
check engine.proceed "a quiet guest: $said, $bytes bytes" same "0 0 unchanged 1" "$said"
check engine.memory "the guest runs on, and its memory is intact" guest_memory_ok
check engine.restored "target, max_pages and permissions as before" is_restored

engine "$(domid)" 2>"$LOGS/engine" > >(trickle) &
saving=$!
session_is_held() { p2mguardctl --json list | jq -e '.[0].state == "held"' >/dev/null 2>&1; }
until_true 30 session_is_held
run_in_guest shrink || say "the guest did not change: $text"
wait "$saving"
said=$(tail -n1 "$LOGS/engine")
check engine.abort "a guest that changes: $said" same "1 tot-pages-changed 0" "${said#* }"
check engine.abort.memory "the guest runs on, and its memory is intact" guest_memory_ok
