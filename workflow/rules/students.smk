rule train:
    input:
        teacher=teacher_of,
    output:
        cell="results/{study}/cells/{pair}/{method}-{digest}.json",
    log:
        "results/{study}/logs/{pair}/{method}-{digest}.log",
    benchmark:
        "results/{study}/benchmarks/{pair}/{method}-{digest}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    shell:
        "python -m skd train {wildcards.study:q} {wildcards.pair:q} {wildcards.method:q}"
        " --expect {wildcards.digest} --threads {threads} --if-leased wait"
        " --output {output.cell:q} 2>&1 | (trap '' INT TERM; exec tee {log:q})"
