rule analyse:
    input:
        cells=cells,
    output:
        analysis="results/{study}/analysis.json",
    log:
        "results/{study}/logs/analyse.log",
    group:
        "report"
    conda:
        ENVIRONMENT
    resources:
        runtime=60,
        mem_mb=4000,
    shell:
        "python -m skd analyse {wildcards.study:q} > {log:q} 2>&1"


rule report:
    input:
        cells=cells,
        sheets=sheets,
        analysis="results/{study}/analysis.json",
    output:
        html="results/{study}/report/index.html",
    log:
        "results/{study}/logs/report.log",
    group:
        "report"
    conda:
        ENVIRONMENT
    resources:
        runtime=60,
        mem_mb=4000,
    shell:
        "python -m report {wildcards.study:q} > {log:q} 2>&1"
