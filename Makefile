# jobqueue, an extension for PostgreSQL 15 and later.
#
#   make && sudo make install      build and install
#   make installcheck              test what is installed, as an ordinary user
#   test/run                       all of that on a machine that has nothing yet

EXTENSION  = jobqueue
MODULE_big = jobqueue

# One paragraph per layer; a layer knows its own directory and those below it.
OBJS = src/jobqueue.o \
       src/worker/worker.o src/worker/launcher.o src/worker/scheduler.o \
       src/worker/demand.o src/worker/maintenance.o src/worker/retention.o src/worker/history.o src/worker/statistics.o src/worker/executor.o src/worker/claimed.o \
       src/worker/batch.o src/worker/dispatcher.o src/worker/delivery.o \
       src/worker/targets.o src/worker/monitors.o src/worker/monitor.o src/worker/monitor_page.o src/worker/monitor_request.o src/worker/forgetting.o src/worker/endings.o src/worker/http_demand.o \
       src/api/arguments.o src/api/enqueue.o src/api/work.o \
       src/api/operate.o src/api/cron.o src/api/cron_expression.o \
       src/api/server.o src/api/wait.o src/api/lanes.o \
       src/api/workflow.o src/api/body.o src/api/run.o src/api/control.o src/api/http.o \
       src/api/secrets.o src/api/events.o \
       src/api/endpoint_health.o src/api/probe.o src/api/limits.o src/api/circuits.o src/api/alerts.o src/api/health.o src/api/metrics.o src/api/histogram.o \
       src/queue/job.o src/queue/job_log.o src/queue/job_body.o src/queue/job_types.o src/queue/backoff.o src/queue/backoff_function.o src/queue/error_rules.o \
       src/queue/enqueue.o src/queue/claim.o src/queue/claim_sql.o \
       src/queue/claim_memory.o src/queue/lanes.o src/queue/lane.o \
       src/queue/ready.o src/queue/rate.o src/queue/limit_memory.o src/queue/limits.o src/queue/limit_notes.o src/queue/limit_places.o src/queue/limit_count.o src/queue/claim_limits.o src/queue/throttle.o src/queue/groups.o \
       src/queue/hints.o src/queue/waiters.o src/queue/resolve.o \
       src/queue/cancellation.o src/queue/change.o \
       src/queue/completion.o src/queue/removal.o src/queue/running.o \
       src/queue/dependencies.o src/queue/job_row.o src/queue/dependents.o src/queue/workflow.o \
       src/queue/guard.o src/queue/row_rules.o src/queue/row_update.o src/queue/validate.o \
       src/queue/definitions.o src/queue/activity.o \
       src/queue/secrets.o src/queue/secret_store.o src/queue/secret_file.o \
       src/queue/endpoints.o src/queue/http_payload.o src/queue/http_job.o src/queue/http_request.o \
       src/queue/http_outcome.o \
       src/queue/events.o src/queue/event_patterns.o src/queue/event_subscriptions.o \
       src/queue/circuits.o src/queue/circuit_rows.o src/queue/circuit_counts.o src/queue/queue_events.o src/queue/event_log.o src/queue/event_kinds.o src/queue/unique.o src/queue/failure_counts.o src/queue/alert_conditions.o src/queue/alerts.o \
       src/queue/metrics.o src/queue/metric_memory.o src/queue/user_metrics.o src/queue/job_counts.o \
       src/cron/calendar.o src/cron/decide.o src/cron/definition.o \
       src/cron/describe.o \
       src/cron/expression.o src/cron/plan.o src/cron/runs.o \
       src/cron/schedule.o src/cron/store.o src/cron/task_row.o \
       src/cron/tasks.o src/cron/template.o src/cron/zone.o \
       src/body/body.o src/body/command.o src/body/current.o \
       src/body/journal.o src/body/session.o src/body/watch.o \
       src/http/server.o src/http/receive.o src/http/target.o src/http/client.o src/http/transfer.o src/http/response.o \
       src/http/form.o src/http/header.o src/http/retry_after.o \
       src/http/signature.o src/http/template.o src/http/url.o \
       src/base/config.o src/base/monitor_list.o src/base/catalog.o src/base/db.o \
       src/base/scope.o src/base/statement.o src/base/table.o \
       src/base/plain.o src/base/trust.o \
       src/base/rows.o src/base/names.o src/base/ownership.o \
       src/base/columns.o src/base/interval.o src/base/notes.o src/base/protect.o \
       src/base/shared_memory.o src/base/shared_state.o src/base/shared_jobs.o src/base/shared_dispatchers.o src/base/wake.o \
       src/base/fault.o src/base/allow_list.o src/base/json.o \
       src/base/endpoint_health.o src/base/probe.o src/base/worker_troubles.o src/base/event_line.o

DATA        = $(sort $(wildcard $(srcdir)/sql/jobqueue--*.sql)) \
              $(srcdir)/web/jobqueue-dashboard.html
SCRIPTS     = bin/jobqueue-top
PG_CPPFLAGS = -I$(srcdir)/src $(shell curl-config --cflags)
SHLIB_LINK  = $(shell curl-config --libs) -lmicrohttpd

# The temporary servers preload the library with its workers switched off.
# Locale and encoding are fixed, so that the golden files fit everywhere.
TEMP_SERVER = --load-extension=jobqueue --no-locale --encoding=UTF8 \
              --temp-config=$(srcdir)/test/regress.conf

REGRESS        = install enqueue claim resolve backoff error_rules operate transitions privileges \
                 run_as settings cron cron_clocks cron_dates dst_night cron_describe \
                 cron_tasks cron_catch_up cron_overlap cron_bounds cron_faults cron_template \
                 cron_operate import_crontab import_pg_cron bad_input members user_triggers \
                 safety row_security capture foreign_triggers lanes \
                 lane_faults owners wait async_claim run_job control secrets events \
                 http_url http_jobs endpoint_status limits circuits dead_letters workflow \
                 unique_scopes debounce metrics metrics_text health event_names alerts dashboard
REGRESS_OPTS   = --inputdir=$(srcdir)/test --temp-instance=tmp_check $(TEMP_SERVER)
ISOLATION      = claim_concurrent claim_comes_back claim_passes_over \
                 resolve_fenced cron_once cron_policies cron_stuck dependencies operator_moves pause_claim event_subscriptions circuit_probe purge parent_failure \
                 unique_races
ISOLATION_OPTS = --inputdir=$(srcdir)/test --outputdir=. --temp-instance=tmp_check_iso $(TEMP_SERVER)
TAP_TESTS      = 1
PROVE_TESTS    = test/t/*.pl
EXTRA_CLEAN    = tmp_check tmp_check_iso

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS resets this one.
PROVE_FLAGS += -I test/lib

# Debian's PGXS tracks no header dependencies: any header rebuilds all.
$(OBJS): $(wildcard src/*.h src/*/*.h)
