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
        "python -m skd teacher {wildcards.study:q} {wildcards.teacher:q} --expect {wildcards.digest}"
        " --threads {threads} --if-leased wait --output {output.card:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
