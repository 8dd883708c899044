rule teacher_views:
    input:
        card=teacher_card_of_views,
    output:
        "results/{study}/teacher-views/{teacher}-{digest}.json",
    log:
        "results/{study}/logs/teacher-views/{teacher}-{digest}.log",
    benchmark:
        "results/{study}/benchmarks/teacher-views/{teacher}-{digest}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        runtime=lambda wildcards, attempt: views_resources(wildcards, attempt).minutes,
        mem_mb=lambda wildcards, attempt: views_resources(wildcards, attempt).memory_mb,
        attempt=lambda wildcards, attempt: attempt,
    params:
        sheet=sheet,
        outputs=lambda wildcards: [
            f"--outputs {name}" for name in views_of(wildcards.study, wildcards.teacher).outputs
        ],
        precision=lambda wildcards: views_of(wildcards.study, wildcards.teacher).precision,
    shell:
        "exec python -m skd job teacher-views {params.sheet:q} {wildcards.teacher:q}"
        " {params.outputs} --precision {params.precision} --cores {threads}"
        " --log {log:q} --output {output:q}"
