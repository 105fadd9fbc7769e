"""Shape of service_metrics.py for the compiler."""

from stateside._speedups.histogram cimport Histogram as Counts


cdef class EntityMetrics:
    cdef public object active, kind, refusals, entity_active_time
    cdef public str entity_name
    cdef public long long highest_stash_depth
    cdef public long long activated_entities, passivated_entities, failed_entities
    cdef public long long received_commands, stashed_commands, unstashed_commands, refused_commands
    cdef public long long failed_commands, completed_commands
    cdef public long long persisted_events, persisted_event_bytes, loaded_events, loaded_event_bytes
    cdef public long long persisted_snapshots, persisted_snapshot_bytes, loaded_snapshots, loaded_snapshot_bytes
    cdef public long long persisted_values, persisted_value_bytes
    cdef public long long updates, refused_updates, deletions, sent_deltas
    cdef public long long streamed_calls, streamed_messages, cancelled_calls
    cdef public Counts relay_time, replayed_events, recovery_time, command_stash_time
    cdef public Counts command_processing_time, command_total_time, persist_time


cdef class ActionMetrics:
    cdef public str service
    cdef public Counts user_function_time
    cdef public long long calls, failed_calls, cancelled_calls, messages_in, messages_out, active_calls
