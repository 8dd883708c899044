rule analyse:
    localrule: True
    input:
        cells=cells,
    output:
        analysis="results/{study}/analysis.json",
    log:
        "results/{study}/logs/analyse.log",
    shell:
        "skd analyse {wildcards.study:q} > {log:q} 2>&1"


rule report:
    localrule: True
    input:
        cells=cells,
        sheet=sheet,
        analysis="results/{study}/analysis.json",
    output:
        html="results/{study}/report/index.html",
    log:
        "results/{study}/logs/report.log",
    shell:
        "skd-report {wildcards.study:q} > {log:q} 2>&1"
