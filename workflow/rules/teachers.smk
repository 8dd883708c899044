rule teacher:
    output:
        card="results/{study}/teachers/{teacher}-{digest}.json",
    log:
        "results/{study}/logs/teachers/{teacher}-{digest}.log",
    benchmark:
        "results/{study}/benchmarks/teachers/{teacher}-{digest}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        runtime=lambda wildcards, attempt: teacher_asks(wildcards, attempt).minutes,
        mem_mb=lambda wildcards, attempt: teacher_asks(wildcards, attempt).memory_mb,
        attempt=lambda wildcards, attempt: attempt,
    params:
        checkpoint_seconds=config["checkpoint_seconds"],
    shell:
        "exec python -m skd job teacher {wildcards.study:q} {wildcards.teacher:q}"
        " --checkpoint-seconds {params.checkpoint_seconds}"
        " --expect {wildcards.digest} --cores {threads} --attempt {resources.attempt}"
        " --log {log:q} --output {output.card:q}"
