# The commands of this checkout. Each prepares the machine by itself (lab/prepare.py) and can be repeated.
export TOPOLOGY = lab/topologies/three-clusters.yml
# `make site` takes this lab's inventory; INVENTORY= another one.
INVENTORY = $$($(LAB) inventory --topology $(TOPOLOGY))
# More arguments for ansible-playbook (make site) or for the gates (make test).
ARGS =

PREPARE = venv=$$(python3 -m lab.prepare $(1))
LAB = "$$venv/bin/python" -m lab
CACHE = $${XDG_CACHE_HOME:-$$HOME/.cache}/meshfleet.istio

.PHONY: help lab lab-status lab-down kubeconfig site demo test test-fast

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14
	@echo "TOPOLOGY=FILE makes it another lab; ARGS='--check --diff' goes to ansible-playbook or the gates"

lab: ## the lab's clusters, built and started
	@$(call PREPARE,--lab) && $(LAB) up --topology $(TOPOLOGY)

lab-status: ## one line per cluster
	@$(call PREPARE) && $(LAB) status --topology $(TOPOLOGY)

lab-down: ## ends the lab and leaves nothing but the cache
	@$(call PREPARE,--lab) && $(LAB) down --topology $(TOPOLOGY)

kubeconfig: ## path of the kubeconfig with a context per cluster (make -s kubeconfig)
	@$(call PREPARE) && $(LAB) kubeconfig --topology $(TOPOLOGY)

site: ## the main job on the lab: ansible-playbook site.yml $(ARGS)
	@$(call PREPARE) && \
	kubeconfig=$$($(LAB) kubeconfig --topology $(TOPOLOGY)) && \
	istioctl=$$($(LAB) istioctl --topology $(TOPOLOGY)) && \
	ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/collections:$(CACHE)/collections" \
	"$$venv/bin/ansible-playbook" site.yml -i "$(INVENTORY)" -e @lab/vars.yml \
		-e kubeconfig="$$kubeconfig" -e istioctl_path="$$istioctl" $(ARGS)

demo: ## everything from nothing to the printed result
	@$(MAKE) --no-print-directory lab
	@$(MAKE) --no-print-directory site

test: ## every gate
	@$(call PREPARE,--lab) && "$$venv/bin/python" tests/gates.py $(ARGS)

test-fast: ## the gates that need no lab
	@$(call PREPARE) && "$$venv/bin/python" tests/gates.py --fast $(ARGS)
