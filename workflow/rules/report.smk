rule analyse:
    input:
        cells=cells,
        teachers=teachers,
        sheets=sheets,  # a sheet may choose other methods for t-SNE
    output:
        # The rule reuses what is in the existing files.
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
    params:
        sheet=sheet,
    shell:
        "python -m skd analyse {params.sheet:q} > {log:q} 2>&1"


rule report:
    input:
        cells=cells,
        teachers=teachers,
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
    params:
        sheet=sheet,
    shell:
        "python -m report {params.sheet:q} > {log:q} 2>&1"
