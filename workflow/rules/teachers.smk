rule teacher:
    output:
        card="results/{study}/teachers/{teacher}-{digest}.json",
    log:
        "results/{study}/logs/teachers/{teacher}-{digest}.log",
    benchmark:
        "results/{study}/benchmarks/teachers/{teacher}-{digest}.tsv"
    conda:
        ENVIRONMENT
    threads: lambda wildcards: teacher_resources(wildcards, 1).cores
    resources:
        runtime=lambda wildcards, attempt: teacher_resources(wildcards, attempt).minutes,
        mem_mb=lambda wildcards, attempt: teacher_resources(wildcards, attempt).memory_mb,
        attempt=lambda wildcards, attempt: attempt,
        # For SLURM; other executors ignore both.
        gpu=processes_of_teacher,
        cpus_per_gpu=lambda wildcards, threads: max(1, threads // processes_of_teacher(wildcards)),
    params:
        sheet=sheet,
        checkpoint_seconds=CONFIG.checkpoint_seconds,
        parallel=CONFIG.command_options,
    shell:
        "exec python -m skd job teacher {params.sheet:q} {wildcards.teacher:q}"
        " {params.parallel} --checkpoint-seconds {params.checkpoint_seconds}"
        " --expect {wildcards.digest} --cores {threads} --attempt {resources.attempt}"
        " --log {log:q} --output {output.card:q}"
