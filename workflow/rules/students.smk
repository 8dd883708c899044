rule train:
    input:
        teacher=teacher_of,
    output:
        cells="results/{study}/cells/{pair}/{batch}-{digest}.json",
    log:
        "results/{study}/logs/{pair}/{batch}-{digest}.log",
    benchmark:
        "results/{study}/benchmarks/{pair}/{batch}-{digest}.tsv"
    params:
        methods=methods_of,
        side_by_side=config["side_by_side"],
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        attempt=attempt,
    shell:
        "exec python -m skd job train {wildcards.study:q} {wildcards.pair:q} {params.methods:q}"
        " --expect {wildcards.digest} --cores {threads} --attempt {resources.attempt}"
        " --side-by-side {params.side_by_side:q} --log {log:q} --output {output.cells:q}"
