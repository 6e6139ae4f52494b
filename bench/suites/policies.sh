#!/bin/bash
# What limits, breakers and rules cost that do not bind, and jobs that wait behind
# some that do. The cases are run as those of cases.sh are; the systems of a table
# are one queue with jobs of different kinds. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

names+=(
	[keyless]='no group keys'
	[keyed]='1,000 group keys'
	[policy_none]='no policy'
	[policy_concurrency]='max_concurrency 10,000'
	[policy_rate]='rate_max 1,000,000 a second'
	[policy_breaker]='breaker_threshold 10, closed'
	[policy_rules]='error_rules and a backoff list'
	[policy_all]='all four'
	[policy_again]='no policy, once more'
	[policy_groups]='group_concurrency 10,000'
	[policy_fair]='fair_groups'
	[policy_single]='group_concurrency 1'
	[any]='another type, by claims of any type'
	[named]='another type, by claims of that type'
	[same]='other groups of the type'
	[blocked_none]='none'
	[blocked_circuit]='behind an open circuit'
	[blocked_pause]='of a paused type'
	[blocked_group]='in a full group'
	[blocked_type]='of a full type'
)

error_rules='[{"sqlstate": "40001", "then": "retry"}, {"http_status": 429, "then": "release", "delay": "1 minute"},
	{"error_like": "%not found%", "then": "fail"}]'
max_concurrency='max_concurrency = 10000'
rate="rate_max = 1000000, rate_window = '1 second'"
breaker='breaker_threshold = 10'
rules="error_rules = '$error_rules', backoff = '[\"1s\", \"10s\", \"5m\"]'"

# What there is to say about a policy, and the keys of its jobs.
describe_policy() # case, system: sets policy, the change of the row in job_types
{
	filling=policy_fill.sql policy='enabled = true'
	case $2 in
		keyed) group_key="'group ' || n % 1000" ;;
		distinct | distinct_crowded)
			ready=$blocked group_key="'group ' || n"
			names[distinct]="$blocked group keys"
			names[distinct_crowded]="$blocked group keys, room for 10,000"
			;;
	esac
	case $1 in
		policy_concurrency) policy=$max_concurrency ;;
		policy_rate) policy=$rate ;;
		policy_breaker) policy=$breaker ;;
		policy_rules) policy=$rules ;;
		policy_all) policy="$max_concurrency, $rate, $breaker, $rules" ;;
		policy_groups) policy='group_concurrency = 10000' ;;
		policy_fair) policy='fair_groups = true' ;;
		policy_single) policy='group_concurrency = 1' ;;
	esac
}

# Which jobs wait, and why.
describe_blocked() # case, system: sets blocked_type, limit and block, too
{
	filling=policy_fill.sql policy='enabled = true'
	blocked_type=blocked limit='enabled = true' block='SELECT 1'
	case $2 in
		any) script=claim_any_type.sql ;;
		same)
			blocked_type=bench policy='group_concurrency = 1'
			group_key="'group ' || n % 1000"
			;;
	esac
	case $1 in
		blocked_circuit) block="SELECT open_circuit('blocked')" ;;
		blocked_pause) block="SELECT pause_job_type('blocked')" ;;
		blocked_group) limit='group_concurrency = 1' block=$(hold_one "$blocked_type") ;;
		blocked_type) limit='max_concurrency = 1' block=$(hold_one "$blocked_type") ;;
	esac
}

hold_one() # job type: a command that claims a job for longer than the suite takes
{
	echo "SELECT id FROM claim_jobs('ffffffff-ffff-4fff-bfff-ffffffffffff', '{$1}', 1, '1 day')"
}

# Keys only matter to policies for groups, and only a full group has room beside it.
has_policy() # case, system
{
	case $2 in
		keyless) [[ $1 =~ _(none|concurrency|rate|breaker|rules|all|again)$ ]] ;;
		keyed) [[ $1 =~ _(none|groups|fair|single)$ ]] ;;
		distinct | distinct_crowded) [[ $1 =~ _(none|single)$ ]] ;;
		same) [[ $1 =~ _(none|group)$ ]] ;;
	esac
}

prepare_policy() # database, case: before the jobs are filled in that can be claimed
{
	query "$1" -c "UPDATE job_types SET $policy WHERE job_type = 'bench'"
	[[ $2 == blocked_* && $2 != blocked_none ]] || return 0
	query "$1" -v blocked="$blocked" -v blocked_type="$blocked_type" -v limit="$limit" \
		-v block="$block" -f "$top/bench/sql/policy_blocked.sql" >/dev/null
}

# What runs must be counted once, and while a claim does so, others may find nothing;
# then the jobs that are there are offered to their groups.
begin_counting() # database
{
	run_script "$1" "$script" 1 -t 200 -D types="$types"
	must_have_run "$1"
}

# All of them but the one that is held wait as before.
must_be_blocked() # database, case
{
	local held

	[ "$2" != blocked_none ] || return 0
	describe_case "$2" "${1#"$2"_}"
	held=$(query "$1" -c "SELECT count(*) FROM jobs_queue WHERE status = 'running'")
	must_equal "waiting jobs of $1" $((blocked - held)) "$(query "$1" -c \
		"SELECT count(*) FROM jobs_queue WHERE job_type = '$blocked_type' AND group_key = 'full'
			AND status = 'queued'")"
	must_equal "held jobs of $1" "$([[ $2 =~ _(group|type)$ ]] && echo 1 || echo 0)" "$held"
}

suite_policies()
{
	local given=$sync_list case_systems='keyless keyed'
	local sync_list=${given:-off on}

	restart_server "jobqueue.max_groups = $((4 * blocked))" "jobqueue.max_limited_jobs = 20000"
	compare_cases policies 'policy_none policy_concurrency policy_rate policy_breaker policy_rules
		policy_all policy_again policy_groups policy_fair policy_single'
	sync_list=$given case_systems=distinct
	compare_cases policies 'policy_none policy_single'
	case_systems='any named same'
	compare_cases blocked 'blocked_none blocked_circuit blocked_pause blocked_group blocked_type'
	restart_server
	case_systems=distinct_crowded
	compare_cases policies 'policy_none policy_single'
	tabulate_cases policies 'Policies that do not bind' 'x no policy'
	tabulate_cases blocked "$blocked jobs that wait, and claims beside them" 'x without'
}
