"""Work of agents: invocations of Stagehand and browser-use."""
