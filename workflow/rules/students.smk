rule train:
    input:
        teacher=teachers_of,
        teacher_views=teacher_views_of,
    output:
        cells="results/{study}/cells/{pair}/{batch}-{digest}.json",
    log:
        "results/{study}/logs/{pair}/{batch}-{digest}.log",
    benchmark:
        "results/{study}/benchmarks/{pair}/{batch}-{digest}.tsv"
    conda:
        ENVIRONMENT
    threads: lambda wildcards: batch_resources(wildcards, 1).cores
    resources:
        runtime=lambda wildcards, attempt: batch_resources(wildcards, attempt).minutes,
        mem_mb=lambda wildcards, attempt: batch_resources(wildcards, attempt).memory_mb,
        attempt=lambda wildcards, attempt: attempt,
        # For SLURM; other executors ignore both.
        gpu=CONFIG.processes_per_run,
        cpus_per_gpu=lambda wildcards, threads: max(1, threads // CONFIG.processes_per_run),
    params:
        sheet=sheet,
        checkpoint_seconds=CONFIG.checkpoint_seconds,
        parallel=CONFIG.command_options,
        methods=methods_of,
        side_by_side=CONFIG.side_by_side,
        teacher_views="live" if CONFIG.teacher_views == "never" else "auto",
    shell:
        "exec python -m skd job train {params.sheet:q} {wildcards.pair:q} {params.methods:q}"
        " {params.parallel} --checkpoint-seconds {params.checkpoint_seconds}"
        " --expect {wildcards.digest} --cores {threads} --attempt {resources.attempt}"
        " --side-by-side {params.side_by_side:q} --teacher-views {params.teacher_views} --log {log:q} --output {output.cells:q}"
