"""The log on disk: partitions, their segments and indexes, and what happens after a crash.

Read in this order:

    files               the disk seam; memory_files is the one without a disk
    layout              which file has which name
    segment             one file of record batches and its indexes
        stored_entries, offset_index, time_index, txn_index
        segment_list    the segments of a partition
    partition           append, read, the four offsets
        appending       what a batch must be
        producer_state  duplicates, gaps, fencing, open transactions; producer_snapshot on disk
        flush           what is not synced yet, and the fsync
        results         what append and read answer
    loading             opening a partition's folder
        recovery        after an unclean stop; replay for the producers
    log_dir             the folder of a log; checkpoints for the small files

Everything here is synchronous, is told the time, and reaches the disk through `files` alone.
Nothing that was acknowledged rests on a file that was not synced: tests/crash stops it at every
operation.
"""
