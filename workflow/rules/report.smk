rule analyse:
    input:
        cells=cells,
    output:
        # Kept while the rule runs, which takes from them what is known already.
        analysis=update("results/{study}/analysis.json"),
        arrays=update("results/{study}/analysis.npz"),
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
        arrays="results/{study}/analysis.npz",
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
