"""The systemd unit of a profile, with ${…} where profiles differ; systemd.py says what stands there."""

from __future__ import annotations

from string import Template

UNIT = Template("""\
# ${name}: written by `launcher render systemd`, and to be written anew when the profile changes.
# What concerns this machine alone belongs beside it: systemctl edit launcher-${name}

[Unit]
Description=${description}
Wants=${wants}
After=${wants}
# Five ends of the launcher itself within an hour are no accident: it restarts its engines on its own, with a budget.
StartLimitIntervalSec=1h
StartLimitBurst=5

[Service]
# Ready is when requests are answered. Until then the launcher has limits of its own (timeouts.start, timeouts.warmup,
# restart.budget), and the first start fetches the model, however long that takes.
Type=notify
NotifyAccess=main
ExecStart=${command}
User=${user}
TimeoutStartSec=infinity
WatchdogSec=30s
# Secrets, NAME=value a line, for root to read: HF_TOKEN, LAUNCHER_API_KEYS, OTEL_EXPORTER_OTLP_HEADERS.
EnvironmentFile=-${folder}/${name}.env

# To stop, the launcher alone is told: it admits no more, lets answers finish and ends its engines last. What is left
# after timeouts.drain (${drain}), timeouts.stop (${stop}) and ${margin}s is killed.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=${stop_s}s

# An engine that dies, of too little memory too, is the launcher's to restart. The launcher is started again unless that
# cannot help: ${hopeless}. ${interrupted}: it was told to stop at once.
OOMPolicy=continue
Restart=on-failure
RestartSec=10s
RestartPreventExitStatus=${hopeless_codes}
SuccessExitStatus=${interrupted}

# All that it writes: records, sockets and keys; what can be made or fetched again; logs. HOME is for Triton and CUDA,
# which keep their caches there.
StateDirectory=launcher
StateDirectoryMode=0700
CacheDirectory=launcher
CacheDirectoryMode=0750
LogsDirectory=launcher
LogsDirectoryMode=0750
Environment=LAUNCHER_STATE_DIR=%S/launcher XDG_CACHE_HOME=%C/launcher HOME=%C/launcher
${writable}UMask=0077
RemoveIPC=yes

# A connection of a client, and one to an engine for it: twice gateway.max_connections (${connections}), and files.
LimitNOFILE=${files}
LimitCORE=0
TasksMax=32768
${memory}
${devices}

# Not MemoryDenyWriteExecute and not ProcSubset: compilers make code at run time, and the plan reads /proc/meminfo.
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet=${capability}
AmbientCapabilities=${capability}
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged

[Install]
WantedBy=multi-user.target
""")
