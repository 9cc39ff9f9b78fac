"""``ridgeline neuron``: the simulated devices from the command line. No service is needed."""

from __future__ import annotations

import typer

from ridgeline_backends.neuron.commands import fault, ls, profile, reshard, score, simulate, watch

app = typer.Typer(no_args_is_help=True)
app.command("ls")(ls.ls)
app.command("score")(score.score)
app.command("fit")(score.fit)
app.command("simulate")(simulate.simulate)
app.command("reshard")(reshard.reshard)
app.command("profile")(profile.profile)
app.command("fault")(fault.fault)
app.command("top")(watch.top)
app.command("monitor")(watch.monitor)


@app.callback()
def neuron() -> None:
    """Simulated AWS Trainium and Inferentia. Only `top`, `monitor` and `fault`, and
    `profile` of an endpoint, need a running service."""
