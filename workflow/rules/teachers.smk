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
    shell:
        "exec python -m skd job teacher {wildcards.study:q} {wildcards.teacher:q}"
        " --expect {wildcards.digest} --cores {threads} --log {log:q} --output {output.card:q}"
