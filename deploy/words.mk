# A variable that nobody reads is a slip: `make up NGIX_PORT=18080` would start on the port that is taken. What stands in the
# environment has been put there for others, too. Included last: `variables` and `prefixes` are complete then.
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
unknown := $(filter-out $(variables),$(given))
ifneq ($(strip $(unknown)),)
wrong := $(shell awk -f deploy/near.awk $(variables) -- $(prefixes) -- $(foreach name,$(unknown),'$(subst ','\'',$(name))'))
ifneq ($(wrong),)
$(error $(wrong))
endif
endif
